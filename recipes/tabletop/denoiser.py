"""Writes down for the model card how the denoiser was trained and what that cost, from the records of its two runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pictures import BUILD


def account(record: dict, finish: dict | None = None) -> dict[str, str]:
    """Return the card's two texts about a run of `denoiser.yaml` and, where there was one, of `finish.yaml`."""
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
    return {"training": training, "cost": cost}


def main() -> None:
    """Read the record, write the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=BUILD / "denoiser")
    parser.add_argument("--finish", type=Path, default=BUILD / "finish")
    parser.add_argument("--results", type=Path, default=Path("recipes/tabletop/results/denoiser.json"))
    args = parser.parse_args()
    finish = args.finish / "record.json"
    found = account(
        json.loads((args.run / "record.json").read_text()), json.loads(finish.read_text()) if finish.exists() else None
    )
    args.results.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
