"""Tunes the embedded base by every method on a subject and on a domain, scores it, and writes docs/methods/gallery.md.

    python recipes/methods/gallery.py            # everything: half an hour on two idle cores
    python recipes/methods/gallery.py lora vera  # only these

What is finished is kept in build/gallery, so a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from inlay.methods import METHODS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "gallery"
PAGE = ROOT / "docs" / "methods" / "gallery.md"
PICTURES = ROOT / "docs" / "pictures" / "methods"
RESULTS = HERE / "gallery.json"
GUIDANCE = 4.0
DRAWN = 16
"""Pictures a score is the mean of; each is paired with the base's picture from the same prompt and noise."""


@dataclass(frozen=True)
class Task:
    """What a method has to learn."""

    recipe: Path
    reference: str
    """Part of the rendered world that the pictures should come to resemble."""
    prompts: tuple[str, ...]


TASKS = {
    "subject": Task(HERE / "subject.yaml", "subject/pip", ("a photo of a sks toy",)),
    "domain": Task(
        HERE / "domain.yaml",
        "domain/sketch/reference",
        (
            "a pencil sketch of a red ball",
            "a pencil drawing of a large blue mug on a wooden table",
            "a sketch of a yellow house on the grass",
            "a sketch of a toy",
        ),
    ),
}
REFERENCES = 200
COLUMNS = (
    "method",
    "learning rate",
    "parameters",
    "subject: likeness",
    "gain",
    "domain: likeness",
    "gain",
    "s a step",
    "peak memory",
    "file",
)
NEW_WORD = {
    "subject": ["data.prompt=a photo of a <new> toy"],
    "domain": ["data.prompt=a picture in the style of <new>"],
}
"""Textual inversion learns a word, which its captions must hold."""
NEW_PROMPTS = {
    "subject": ("a photo of a <new> toy",),
    "domain": (
        "a picture of a red ball in the style of <new>",
        "a picture of a large blue mug on a wooden table in the style of <new>",
        "a picture of a yellow house on the grass in the style of <new>",
        "a picture of a toy in the style of <new>",
    ),
}
"""They name what the others' prompts name: a picture of nothing but its ground is nearer to many a reference."""


FASTER = {"lora": "1e-3", "lora-dora": "1e-3", "lora-pissa": "1e-3", "adapter": "1e-3", "hypernetwork": "1e-3"}
FASTER["full"] = "1e-4"
"""Shown at ten times their default learning rates too: those are the publications', for Stable Diffusion's size."""


def cases() -> dict[str, str]:
    """Return what to run: a name for pages and folders, and the method as the command line takes it."""
    found = {name: f"method={{name: {name}}}" for name in METHODS}
    found["textual_inversion"] = "method={name: textual_inversion, token: <new>, init: toy}"
    found["lora-dora"] = "method={name: lora, dora: true}"
    found["lora-pissa"] = "method={name: lora, init: pissa}"
    found |= {f"{case}-{rate}": found[case] for case, rate in FASTER.items()}
    return dict(sorted(found.items()))


def overrides(case: str, task: str) -> list[str]:
    """Return the settings by which a case's run differs from the task's recipe."""
    own = [cases()[case], "preview.pictures=1"]
    own += [f"train.learning_rate={rate}" for slower, rate in FASTER.items() if case == f"{slower}-{rate}"]
    return own + NEW_WORD[task] if case == "textual_inversion" else own


def prompts(case: str, task: str) -> tuple[str, ...]:
    """Return what to draw to see whether a case has learned its task."""
    return NEW_PROMPTS[task] if case == "textual_inversion" else TASKS[task].prompts


def work(arguments: tuple[str, str]) -> str | None:
    """Tune and score one case on one task, as `inlay tune` does; return what went wrong."""
    from inlay.run.job import execute
    from inlay.run.load_job import load_job

    case, task = arguments
    directory = BUILD / task / case
    if (directory / "score.json").exists():
        return None
    try:
        execute(load_job(TASKS[task].recipe, overrides(case, task)), directory)
        score(case, task)
    except Exception:  # one that fails must not end the others
        return traceback.format_exc()
    return None


def score(case: str, task: str) -> None:
    """Draw with the base and with the tuned model from the same noise, and compare both with the references."""
    import numpy as np

    from inlay.data.tabletop import World
    from inlay.metrics.features import image_features
    from inlay.run.draw import draw, load_target

    def unit(images: list[np.ndarray]) -> np.ndarray:
        features = image_features(np.stack(images))
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    directory = BUILD / task / case
    world = World(TASKS[task].reference)
    references = unit([world[index].image for index in range(min(REFERENCES, len(world)))])
    # The base does not know the new word; it is shown what the word began at.
    asked = {
        "before": [
            prompt.replace("the style of <new>", "the style of toy").replace("<new> ", "")
            for prompt in prompts(case, task)
        ],
        "after": prompts(case, task),
    }
    drawn, likeness = {}, {}
    for when, target in (("before", "tabletop"), ("after", directory)):
        model = load_target(target, "cpu")
        found = draw(model, asked[when], DRAWN // len(asked[when]), guidance=GUIDANCE)
        drawn[when] = [one.pixels for one in found]
        likeness[when] = (unit(drawn[when]) @ references.T).mean(1)
    gain = likeness["after"] - likeness["before"]
    each = DRAWN // len(asked["after"])
    shown = [number * each for number in range(len(asked["after"]))] if len(asked["after"]) > 1 else range(4)
    np.save(directory / "pictures.npy", np.stack([[drawn[when][index] for index in shown] for when in drawn]))
    found = {
        "before": float(likeness["before"].mean()),
        "after": float(likeness["after"].mean()),
        "gain": float(gain.mean()),
        "half_width": float(1.96 * gain.std(ddof=1) / np.sqrt(len(gain))),
    }
    (directory / "score.json").write_text(json.dumps(found, indent=2) + "\n")


def collect() -> dict[str, dict]:
    """Return what every finished case measured, by case and task."""
    found: dict[str, dict] = {}
    for case in cases():
        places = {task: BUILD / task / case for task in TASKS}
        if all((place / "score.json").exists() for place in places.values()):
            records = {task: json.loads((place / "record.json").read_text()) for task, place in places.items()}
            found[case] = {
                task: {
                    **json.loads((place / "score.json").read_text()),
                    **records[task]["costs"],
                    "base": records[task]["base"]["hash"][:8],
                    "learning_rate": json.loads((place / "trace.jsonl").read_text().splitlines()[0])["learning_rate"],
                }
                for task, place in places.items()
            }
    return found


def draw_cases(found: dict[str, dict]) -> None:
    """Save one picture a case: before and after, for the subject and for the domain."""
    import numpy as np

    from inlay.run.pictures import Block, Row, grid

    PICTURES.mkdir(parents=True, exist_ok=True)
    for case in found:
        rows = []
        for task in TASKS:
            before, after = np.load(BUILD / task / case / "pictures.npy")
            asked = ", ".join(dict.fromkeys(prompts(case, task)))
            rows.append(Row(f"{task}: {asked}", [Block("before", before), Block("after", after)]))
        grid(rows).save(PICTURES / f"{case}.webp", quality=85)


def learned(scores: dict) -> bool:
    """Return whether the likeness rose by more than the uncertainty of its mean, in both tasks."""
    return all(scores[task]["gain"] > scores[task]["half_width"] for task in TASKS)


def write_page(found: dict[str, dict]) -> None:
    """Write the page from the results alone."""
    bases = sorted({one["base"] for scores in found.values() for one in scores.values()})
    lines = [
        "# What every method makes of the embedded base",
        "",
        "Each method learned one toy from five pictures (`recipes/methods/subject.yaml`) and a style",
        "of drawing from a hundred captioned sketches (`recipes/methods/domain.yaml`), in 200 steps of four pictures.",
        "Nothing here is chosen by eye: seed 0, the same noise before and after, one run a method, settings at their",
        "defaults. Where the default learning rate is the publication's, for models of Stable Diffusion's size, a",
        f"second run at ten times that rate stands beside it: {', '.join(sorted(FASTER))}.",
        "",
        "**Likeness** is the mean cosine between the features of 16 drawn pictures and those of the real ones (the",
        "toy's five, or 200 sketches that training never saw), by the image tower that ships with the base. **Gain**",
        "is what tuning added, with the half width of a 95 % interval over the 16 pairs of pictures that share their",
        "noise. It says how surely these pictures moved towards the references; one run a method says little about",
        "which method is best, which takes a study with several seeds.",
        "",
        f"The base's hash, as records have it: {', '.join(bases)}. A base that has learned on gives other figures.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for case, scores in found.items():
        subject, domain = scores["subject"], scores["domain"]
        cells = [f"[{case}](#{case})", f"{subject['learning_rate']:g}"]
        cells.append(f"{subject['trainable_parameters']:,}")
        for one in (subject, domain):
            cells += [f"{one['before']:.3f} → {one['after']:.3f}", f"{one['gain']:+.3f} ± {one['half_width']:.3f}"]
        cells += [f"{domain['seconds_per_step']:.2f}", f"{domain['peak_bytes'] / 2**20:.0f} MiB"]
        cells.append(f"{subject['result_bytes'] / 1000:,.0f} kB")
        lines.append(f"| {' | '.join(cells)} |")
    unsure = [case for case, scores in found.items() if not learned(scores)]
    lines += [
        "",
        f"Every gain is larger than its uncertainty, but one or both of: {', '.join(unsure)}."
        if unsure
        else "Every gain is larger than its uncertainty.",
        "",
        "Seconds and memory are those of a process of one thread on a shared two-core machine: compare them with each",
        "other, not with yours. To make this page again: `python recipes/methods/gallery.py`.",
    ]
    for case in found:
        lines += ["", f"## {case}", "", f"![{case}, before and after](../pictures/methods/{case}.webp)"]
    PAGE.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run what is wanted, two at a time, and write the page from all that is finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"by default all of: {', '.join(cases())}")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.cases) - set(cases()))
    if unknown:
        parser.error(f"no method is called {', '.join(unknown)}; allowed: {', '.join(cases())}")
    wanted = [(case, task) for case in arguments.cases or cases() for task in TASKS]
    import peft  # noqa: F401 - once, before the processes part
    import torch

    import inlay.run.job  # noqa: F401
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    # A process for each run, so that its peak memory is its own.
    with get_context("fork").Pool(arguments.workers, maxtasksperchild=1) as pool:
        for number, ((case, task), problem) in enumerate(zip(wanted, pool.imap(work, wanted), strict=True), 1):
            print(f"{number}/{len(wanted)} {case} {task}: {problem or 'done'}", flush=True)
    found = collect()
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    draw_cases(found)
    write_page(found)


if __name__ == "__main__":
    main()
