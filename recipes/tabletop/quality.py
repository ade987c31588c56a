"""Measures the embedded base against renders that its training never saw, and draws a labelled grid of samples."""

from __future__ import annotations

import argparse
import json
import math
import textwrap
import time
from collections import Counter
from pathlib import Path

import autoencoder
import clip
import numpy as np
import torch
from ceiling import best_retrieval
from classifier import ATTRIBUTES, load, truth
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from export import BASE
from pictures import BUILD, TEST, pictures
from safetensors.torch import load_file
from training import add_device, bf16_where_fast

from inlay.data.tabletop import Scene
from inlay.metrics.features import NAME, fingerprint, image_features
from inlay.metrics.frechet import frechet_distance
from inlay.metrics.intervals import wilson
from inlay.metrics.judge import folder
from inlay.randomness import stream

SEED = 0
GUIDANCES = (1.5, 2.0, 3.0, 4.5, 7.0)
GRID = (
    "a photo of a red ball",
    "a large blue mug on a wooden table at sunset",
    "a yellow house on the grass at night",
    "a green cube left of a white egg",
    "a photo of a toy",
    "a snowman wearing a red hat in the snow",
    "a small purple bottle on the left on sand",
    "a pink striped cone on a marble table",
    "an orange lamp at night",
    "a white dotted mushroom on grass in the morning",
    "a photo of a green tree on snow",
    "a brown chair on a red carpet",
    "a black checkered cube on a tiled floor at noon",
    "a pink cake with a blue flag on a wooden table",
    "a green cactus on the sand in bright noon light",
    "a large orange pyramid on sand at sunset",
    "a blue ring seen from above",
    "a red can on the right on a blue cloth",
    "a colourful toy on grass",
    "a large toy wearing a blue hat on the snow",
    "a picture of a yellow egg at eye level",
    "a small red house on a marble table in morning light",
    "a white bottle right of a red cone",
    "a blue striped ball on a red carpet at night by moonlight",
    "a purple mushroom and a yellow cake",
    "a large green bottle on a tiled floor",
    "a brown egg on a wooden table from above",
    "a small pink tree on the right in the snow",
    "a red striped mug on grass",
    "a black lamp on a marble table at sunset",
    "an orange dotted ring on sand",
    "a toy with a red flag on a wooden table",
)


def proportion(right: int, count: int) -> dict:
    """Return a proportion with its 95 % interval (Wilson 1927)."""
    interval = wilson(right / count, count)
    return {
        "value": round(right / count, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "n": count,
    }


def asks_class_and_colour(scene: Scene, caption: str) -> bool:
    """Return whether a caption names class and colour of one thing, and no other thing or colour but the surface's."""
    if len(scene.things) != 1 or scene.things[0].colour is None or scene.things[0].accessory is not None:
        return False
    words = caption.split()
    thing = scene.things[0]
    return thing.kind in words and thing.colour in words[: words.index(thing.kind)]


class Sampler:
    """Draws pictures with the base as a user of diffusers would, many at a time."""

    def __init__(self, base: Path, steps: int, device: torch.device):
        self.pipeline = StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32)
        config = self.pipeline.scheduler.config
        self.pipeline.scheduler = DPMSolverMultistepScheduler.from_config(config)
        self.pipeline.set_progress_bar_config(disable=True)
        self.pipeline.to(device)
        self.steps, self.device = steps, device
        self.batch = 64 if device.type == "cpu" else 512

    def __call__(self, prompts: list[str], guidance: float, purpose: str) -> np.ndarray:
        """Return pictures uint8 [N, 64, 64, 3]; noise follows from the purpose and a prompt's place."""
        found, begun = [], time.perf_counter()
        for begin in range(0, len(prompts), self.batch):
            part = prompts[begin : begin + self.batch]
            generators = [stream(SEED, f"quality/{purpose}", begin + k) for k in range(len(part))]
            with bf16_where_fast(self.device):
                images = self.pipeline(
                    part,
                    num_inference_steps=self.steps,
                    guidance_scale=guidance,
                    generator=generators,
                    height=64,
                    width=64,
                    output_type="np",
                ).images
            found.append((images * 255).round().astype(np.uint8))
            spent = time.perf_counter() - begun
            print(f"{purpose}, guidance {guidance}: {begin + len(part)} of {len(prompts)}, {spent:.0f} s", flush=True)
        return np.concatenate(found)


def judge_folder() -> Path:
    """Return where the judge lies: the one that was just trained, or else the one that ships with inlay."""
    trained = BUILD / "classifier"
    return trained if (trained / "model.safetensors").exists() else folder()


def judged(named: dict[str, np.ndarray], scenes: list[Scene]) -> dict:
    """Return how often what a judge named in pictures is the scenes' class, colour, and both."""
    wanted = np.array([truth(scene) for scene in scenes])
    kind, colour = (named[name] == wanted[:, k] for k, name in enumerate(list(ATTRIBUTES)[:2]))
    return {
        "class": proportion(int(kind.sum()), len(scenes)),
        "colour": proportion(int(colour.sum()), len(scenes)),
        "class_and_colour": proportion(int((kind & colour).sum()), len(scenes)),
    }


def judged_by_class(named: dict[str, np.ndarray], scenes: list[Scene]) -> dict[str, dict]:
    """Return of each class among scenes how often a judge named it in their pictures, best first.

    Beside the proportion stands `taken_for`: what else it named there most often, or None.
    """
    wanted = np.array([truth(scene)[0] for scene in scenes])
    classes, found = ATTRIBUTES["class"], {}
    for kind in np.unique(wanted):
        seen = Counter(named["class"][wanted == kind].tolist())
        row = proportion(seen.pop(int(kind), 0), int((wanted == kind).sum()))
        found[classes[kind]] = row | {"taken_for": classes[seen.most_common(1)[0][0]] if seen else None}
    return dict(sorted(found.items(), key=lambda item: -item[1]["value"]))


@torch.no_grad()
def retrieval(sampler: Sampler, base: Path, images: np.ndarray, captions: list[str]) -> dict:
    """Return retrieval with the two towers as shipped."""
    tower, tokenizer = sampler.pipeline.text_encoder, sampler.pipeline.tokenizer
    projection = load_file(base / "image_encoder" / "text_projection.safetensors")["text_projection.weight"].float()
    read = []
    for begin in range(0, len(captions), 256):
        part = tokenizer(captions[begin : begin + 256], padding="max_length", truncation=True, return_tensors="pt")
        read.append(tower(part.input_ids.to(sampler.device)).pooler_output.cpu() @ projection.T)
    seen = torch.from_numpy(image_features(images, folder=base / "image_encoder"))
    return clip.retrieval(seen, torch.cat(read), captions)


def draw_grid(images: np.ndarray, prompts: tuple[str, ...], path: Path) -> None:
    """Write pictures with their prompts beneath as one PNG, eight a row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = math.ceil(len(images) / 8)
    figure, axes = pyplot.subplots(rows, 8, figsize=(12, 2.05 * rows), dpi=80)
    for axis, image, prompt in zip(axes.flat, images, prompts, strict=True):
        axis.imshow(image, interpolation="bicubic")
        axis.set_title(textwrap.fill(prompt, 24), y=-0.04, pad=0, va="top", fontsize=6.5)
        axis.axis("off")
    figure.subplots_adjust(0.005, 0.05, 0.995, 0.995, wspace=0.05, hspace=0.32)
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--sweep", type=int, default=100, help="prompts that choose the guidance; others are measured")
    parser.add_argument("--frechet", type=int, default=1000, help="pictures a side of a Frechet distance")
    parser.add_argument("--renders", type=int, default=2048, help="test renders that PSNR and retrieval are taken on")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    add_device(parser)
    parser.add_argument("--results", type=Path, default=Path("recipes/tabletop/results/quality.json"))
    parser.add_argument("--grid", type=Path, default=Path("recipes/tabletop/results/samples.png"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images, captions, scenes = pictures("test", TEST)
    images = np.array(images)
    device = torch.device(args.device)
    sampler = Sampler(args.base, args.steps, device)
    judge = load(judge_folder()).to(device)
    vae = AutoencoderKL.from_pretrained(args.base / "vae", dtype=torch.float32).to(device)
    quality: dict = {"steps": args.steps, "solver": "DPM-Solver++ (order 2)", "seed": SEED}
    quality["autoencoder"] = autoencoder.measure(vae, images[: args.renders])
    tested = captions[: args.renders]
    quality["retrieval"] = retrieval(sampler, args.base, images[: args.renders], tested)
    quality["retrieval"]["at_most"] = best_retrieval(tested, scenes[: args.renders], clip.groups(tested))
    print(json.dumps(quality, indent=1), flush=True)

    chosen = [k for k in range(TEST) if asks_class_and_colour(scenes[k], captions[k])][: args.prompts + args.sweep]
    measured, swept = chosen[: args.prompts], chosen[args.prompts :]
    quality["judge_on_renders_of_these_prompts"] = judged(judge.name(images[measured]), [scenes[k] for k in measured])
    quality["sweep"] = []
    for guidance in GUIDANCES:
        drawn = sampler([captions[k] for k in swept], guidance, "sweep")
        quality["sweep"].append({"guidance": guidance} | judged(judge.name(drawn), [scenes[k] for k in swept]))
    best = max(quality["sweep"], key=lambda row: row["class_and_colour"]["value"])["guidance"]
    quality["guidance"] = best
    drawn = sampler([captions[k] for k in measured], best, "prompts")
    named = judge.name(drawn)
    quality["samples"] = judged(named, [scenes[k] for k in measured])
    quality["samples_by_class"] = judged_by_class(named, [scenes[k] for k in measured])

    side = min(args.frechet, TEST // 2)
    tower = args.base / "image_encoder"
    real = image_features(images[:side], folder=tower)
    other = image_features(images[side : 2 * side], folder=tower)
    distances = {"name": f"FD-{NAME}", "weights_sha256": fingerprint(tower), "n": side}
    distances["real_against_real"] = frechet_distance(real, other)
    # At guidance 1.5 as well: strong guidance narrows what is drawn, which a distance between distributions punishes.
    for guidance in sorted({1.5, best}):
        drawn = sampler(captions[side : 2 * side], guidance, "frechet")
        distances[f"samples_at_guidance_{guidance}"] = frechet_distance(real, image_features(drawn, folder=tower))
    grid = sampler(list(GRID), best, "grid")
    draw_grid(grid, GRID, args.grid)
    torch.manual_seed(SEED)
    sampler.pipeline.unet = UNet2DConditionModel.from_config(sampler.pipeline.unet.config).to(device)
    drawn = sampler(captions[side : 2 * side], best, "untrained")
    distances["untrained_denoiser"] = frechet_distance(real, image_features(drawn, folder=tower))
    quality["frechet"] = distances
    args.results.write_text(json.dumps(quality, indent=1) + "\n")
    print(json.dumps(quality, indent=1))


if __name__ == "__main__":
    main()
