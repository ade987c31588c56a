"""Writes the model card of the embedded base from the figures that the other scripts of this folder left."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from export import BASE

RESULTS = Path("recipes/tabletop/results")
TRAINED = ("autoencoder", "clip", "classifier")
SHARED = "two CPU cores that other work shared"
"""What the base was made on where the figures name no GPU."""
DIRECTIONS = {"image_to_text": "picture to text", "text_to_image": "text to picture"}


def share(found: dict) -> str:
    """Return a proportion with its interval in per cent."""
    return f"{100 * found['value']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f}, n = {found['n']})"


def minutes(seconds: float) -> str:
    """Return a duration in minutes."""
    return f"{seconds / 60:.0f} min"


def denoiser_lines(path: Path) -> tuple[str, str]:
    """Return how the denoiser was trained and what that cost, from the record of its run, where there is one."""
    if not path.exists():
        return "See `recipes/tabletop/denoiser.yaml`.", "denoiser: not recorded"
    found = json.loads(path.read_text())
    return found["training"], found["cost"]


def samples_lines(quality: dict) -> list[str]:
    """Return the table rows about the denoiser."""
    drawn, known = quality["samples"], quality["judge_on_renders_of_these_prompts"]
    rows = [
        f"| {words}, judged by the classifier | {share(drawn[key])} | {share(known[key])} |"
        for key, words in (("class", "class right"), ("colour", "colour right"), ("class_and_colour", "both right"))
    ]
    frechet = quality["frechet"]
    rows += [
        f"| {frechet['name']}, {key.replace('_', ' ')}, n = {frechet['n']} a side | {value:.4f} | "
        f"{frechet['real_against_real']:.4f} |"
        for key, value in frechet.items()
        if key.startswith(("samples", "untrained"))
    ]
    return rows


def class_lines(by_class: dict[str, dict]) -> list[str]:
    """Return the table rows about how often each class is drawn so that it can be told."""
    return [
        f"| {name} | {100 * found['value']:.0f} % ({100 * found['low']:.0f} to {100 * found['high']:.0f}) | "
        f"{found['n']} | {found['taken_for'] or '–'} |"
        for name, found in by_class.items()
    ]


def shortfalls(quality: dict, machine: str) -> list[str]:
    """Return a line for every aim of the base that the measured figures miss.

    Args:
        quality: the measured figures.
        machine: what the base was trained on.
    """
    both, retrieval = quality["samples"]["class_and_colour"]["value"], quality["retrieval"]
    aims = [("Class and colour are both right in", both, 0.8, "of the prompts", 1.0)] + [
        (f"Retrieval from {words} is right in", retrieval[key], 0.9, "of the cases", retrieval["at_most"][key])
        for key, words in DIRECTIONS.items()
    ]
    limit = f" What limits it is time: few pictures were seen, on {machine}." if machine == SHARED else ""
    return [
        f"- {what} {100 * value:.1f} % {whose}; the aim is {100 * aim:.0f} %"
        + (f", which no reader could reach (see above).{limit}" if most < aim else f".{limit}")
        for what, value, aim, whose, most in aims
        if value < aim
    ]


def card(results: Path) -> str:
    """Return the model card in Markdown."""
    read = {name: json.loads((results / f"{name}.json").read_text()) for name in TRAINED}
    quality = json.loads((results / "quality.json").read_text())
    training, cost = denoiser_lines(results / "denoiser.json")
    vae, clip, judge = (read[name] for name in TRAINED)
    # The second stage of the image tower is optional: the weights in place may be those of the first alone.
    refined = results / "clip-refined.json"
    onward = longer = ""
    if refined.exists():
        second = json.loads(refined.read_text())
        onward = f", then {second['steps']} steps of the image side alone"
        longer = f" and {minutes(second['seconds'])} for its image side"
    gpu = vae.get("device", "cpu") != "cpu"
    machine, script = (f"one {vae['device']}", "gpu.sh") if gpu else (SHARED, "build.sh")
    made_on = f"one {vae['device']}" if gpu else "two cores of a CPU that other work shared, without a GPU"
    accuracy = judge["accuracy"]
    retrieval, codec = quality["retrieval"], quality["autoencoder"]
    rows, classes = samples_lines(quality), class_lines(quality["samples_by_class"])
    retrieved = "\n".join(
        f"| retrieval among 64 captions that differ, {words} | {100 * retrieval[key]:.1f} % | "
        f"at most {100 * retrieval['at_most'][key]:.1f} % |"
        for key, words in DIRECTIONS.items()
    )
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# The embedded base "tabletop"

A small text-to-image model that ships with inlay, so that quickstart, tests and studies need no download. It draws
64 x 64 pictures of a world that inlay renders itself: lit objects on a surface. It is a standard
`StableDiffusionPipeline` directory; plain diffusers loads it.

![32 prompts and what the model draws for them](samples.png)

*Not chosen: the first picture of each prompt, {quality["steps"]} steps of {quality["solver"]}, guidance \
{quality["guidance"]}.*

## Data

Pictures 0 to {vae["pictures"] - 1} of the part "train" of `inlay.data.tabletop`, rendered from their number alone,
with the captions that describe them. No third-party pictures, words or weights. All figures below are on the part
"test", which training never saw.

## Parts and training

- **Tokenizer**: byte-level BPE; each word of the world is one token; 132 rare tokens (`sks`, `zwx`, `qiv`, ...) and
  frequent English words have a token too. 32 tokens a prompt.
- **CLIP**: text tower of {clip["text_parameters"] / 1e6:.1f} M parameters and image tower of
  {clip["image_parameters"] / 1e6:.1f} M, from scratch: {clip["steps"]} steps at batch {clip["batch"]} on a symmetric
  contrastive loss plus word prediction from the picture{onward}.
  15 % of the captions carry a word that says nothing, so that rare tokens are harmless until somebody tunes them. The
  image tower is the embedded feature extractor of inlay's metrics.
- **Autoencoder**: {vae["parameters"] / 1e6:.1f} M parameters, 64 x 64 x 3 => 8 x 8 x
  {len(vae["test"]["channel_std"])}. The encoder is set in closed form: principal components of 8 x 8 patches, written
  into an ordinary `AutoencoderKL`. The decoder is trained: {vae["steps"]} steps at batch {vae["batch"]} on the absolute
  error, with noise of 3 % on the latents. The latents' overall standard deviation is
  {vae["test"]["latent_std"]:.2f}; by channel it falls from {max(vae["test"]["channel_std"]):.2f} (a patch's mean
  colour) to {min(vae["test"]["channel_std"]):.2f} (fine detail).
- **Denoiser**: {training}
- **Classifier** (ships with inlay as the judge of `inlay.metrics`; `recipes/tabletop/classifier.py` makes it):
  {judge["parameters"] / 1e6:.1f} M parameters; judges samples, trained on renders, half of them softened and grained.

Cost on {made_on}: CLIP {minutes(clip["seconds"])}{longer}, decoder
{minutes(vae["seconds"])}, classifier {minutes(judge["seconds"])}, {cost}.
Everything is made again by `recipes/tabletop/{script}`.

## Measured quality

| what | this model | real renders |
|---|---|---|
| autoencoder, mean PSNR of {codec["images"]} renders | {codec["psnr_mean"]:.2f} dB | |
{retrieved}
{chr(10).join(rows)}

Intervals are Wilson's at 95 %. The classifier's own accuracy on {judge["test_pictures"]} one-object test renders: class
{100 * accuracy["class"]:.1f} %, colour {100 * accuracy["colour"]:.1f} %, both
{100 * judge["accuracy_of_class_and_colour_together"]:.1f} %; a sample can be judged right no more often than renders
are. The guidance was chosen on {quality["sweep"][0]["class"]["n"]} other prompts among
{", ".join(str(row["guidance"]) for row in quality["sweep"])}. Captions leave things out, so several fit one picture:
*at most* is how often a reader would be right who knows every scene and how captions are worded
(`recipes/tabletop/ceiling.py`).

The same {quality["samples"]["class"]["n"]} pictures, class by class:

| thing | class right | prompts | else mostly taken for |
|---|---|---|---|
{chr(10).join(classes)}

## Limits

- It knows the world's words and nothing else: no photographs, no people, no text in pictures.
- 64 x 64 pixels. Fine texture (grain of sand, veins of marble) is drawn softer than it is rendered.
- Relations of two objects and rare combinations come out less surely than single objects.
{chr(10).join(shortfalls(quality, machine))}

## Use

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("<this directory>")
picture = pipeline("a red ball on grass", height=64, width=64, guidance_scale={quality["guidance"]}).images[0]
```
"""


def main() -> None:
    """Write the card and its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    (args.base / "MODEL_CARD.md").write_text(card(args.results))
    grid = args.results / "samples.png"
    if grid.exists():  # git does not keep it here; without a new one, that of the base stays
        shutil.copy(grid, args.base / "samples.png")
    print(args.base / "MODEL_CARD.md")


if __name__ == "__main__":
    main()
