"""Writes down for the model card how the denoiser was trained and what that cost, from the records of its runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pictures import BUILD

LESSONS = ("taught", "taught-again", "taught-third")
"""The runs of `teach.py`."""
STAGES = ("denoiser", "finish", *LESSONS)
"""The trainings of the denoiser; the last of them that was run ships."""
CLASSIFIER = Path("recipes/tabletop/results/noisy-classifier.json")


def account(record: dict, finish: dict | None = None, taught: tuple[dict, list[dict]] | None = None) -> dict[str, str]:
    """Return the card's two texts about how the denoiser was trained and what that cost.

    Args:
        record: of the run of `denoiser.yaml`.
        finish: of the run of `finish.yaml`, where there was one.
        taught: what `noisy_classifier.py` and every run of `teach.py` wrote of themselves, where they were run.
    """
    settings, costs, found = record["config"], record["costs"], record["metrics"]
    train, objective = settings["train"], settings["objective"]
    prediction = objective["prediction"].replace("_prediction", "-prediction")
    mask = settings["data"]["mask"]
    weighed = (
        "unweighted" if mask is None else f"unweighted but for masks ({mask['outside']:g} outside things, 1 on them)"
    )
    shift = objective["timesteps"]["shift"]
    limited = train["steps"] is None or costs["steps"] < train["steps"]
    held_out = f"; loss on held-out pictures {found['validation_loss']:.3f}" if found["validation_loss"] else ""
    training = (
        f"U-Net of {costs['denoiser_parameters'] / 1e6:.1f} M parameters (two cross-attention levels, one without, a "
        f"middle block), {prediction}, {weighed}, timesteps shifted by {shift:g} towards noise and stratified, "
        f"{costs['steps']:,} steps at batch {train['batch_size']} = "
        f"{costs['images_seen']:,} pictures seen, AdamW {train['learning_rate']:g} with cosine decay, "
        f"{train['precision']}, EMA {train['ema']['decay']:g}{': ended by the clock' if limited else ''}{held_out}."
    )
    rate = costs["images_seen"] / costs["training_seconds"]
    cost = f"denoiser {costs['training_seconds'] / 60:.0f} min (about {rate:,.0f} pictures a second)"
    if finish is not None:
        settings, costs = finish["config"], finish["costs"]
        training += (
            f" Then `finish.yaml`: {costs['steps']:,} steps = {costs['images_seen']:,} pictures with "
            f"{settings['data']['mask']['outside']:g} outside things and all timesteps alike, from "
            f"{settings['train']['learning_rate']:g}."
        )
        cost += f" and {costs['training_seconds'] / 60:.0f} min to finish"
    if taught is not None:
        training, cost = training + taught_text(*taught), cost + taught_cost(*taught)
    return {"training": training, "cost": cost}


def taught_text(classifier: dict, lessons: list[dict]) -> str:
    """Return what the card says of the classifier of noised latents and of what the denoiser learnt from it."""
    right = {name: found["500"] for name, found in classifier["accuracy_by_timestep"].items()}
    runs = " and again ".join(
        f"{lesson['steps']:,} steps at batch {lesson['batch']} = {lesson['images_seen']:,} pictures from "
        f"{lesson['learning_rate']:g}"
        for lesson in lessons
    )
    excess, perceptual = (
        " then ".join(dict.fromkeys(f"{lesson[name]:g}" for lesson in lessons)) for name in ("excess", "perceptual")
    )
    return (
        f" Then `teach.py`: {runs}, with two more losses by a classifier of noised latents "
        f"({classifier['parameters'] / 1e6:.1f} M parameters, {classifier['steps']:,} steps at batch "
        f"{classifier['batch']}; of test renders it names the class of {100 * right['class']:.0f} % and the colour of "
        f"{100 * right['colour']:.0f} % at t = 500), which is shown what the denoiser predicts, noised again, and the "
        f"real picture under the same noise: {excess} times what it errs more about class and colour, "
        f"{perceptual} times how much its hidden values differ (arXiv 2401.00110). It shares neither "
        "weights nor inputs with the judge of the figures below."
    )


def taught_cost(classifier: dict, lessons: list[dict]) -> str:
    """Return what the card says of the cost of both."""
    spent = " + ".join(f"{lesson['seconds'] / 60:.0f}" for lesson in lessons)
    return f", classifier of latents {classifier['seconds'] / 60:.0f} min, learning from it {spent} min"


def main() -> None:
    """Read the record, write the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=BUILD / "denoiser")
    parser.add_argument("--finish", type=Path, default=BUILD / "finish")
    parser.add_argument("--taught", type=Path, nargs="+", default=[BUILD / lesson for lesson in LESSONS])
    parser.add_argument("--results", type=Path, default=Path("recipes/tabletop/results/denoiser.json"))
    args = parser.parse_args()
    finish = args.finish / "record.json"
    lessons = [
        json.loads((folder / "summary.json").read_text())
        for folder in args.taught
        if (folder / "summary.json").exists()
    ]
    found = account(
        json.loads((args.run / "record.json").read_text()),
        json.loads(finish.read_text()) if finish.exists() else None,
        (json.loads(CLASSIFIER.read_text()), lessons) if lessons else None,
    )
    args.results.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
