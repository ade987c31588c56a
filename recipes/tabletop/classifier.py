"""Trains the judge of the embedded base: a small convolutional net that names what a one-object picture shows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from clip import shifted
from pictures import BUILD, TEST, pictures, pixels
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from training import Training, add_training, bf16_where_fast

from inlay.data.tabletop import Scene, scene
from inlay.metrics.judge import build
from inlay.randomness import stream

SEED = 0
SEVERAL = "several"
"""The colour of a toy in the colours of its design."""
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "class": scene.CLASSES,
    "colour": (*scene.COLOURS, SEVERAL),
    "pattern": scene.PATTERNS,
    "size": scene.SIZES,
    "position": scene.POSITIONS,
    "surface": scene.SURFACES,
    "time": scene.TIMES,
    "viewpoint": scene.VIEWPOINTS,
}
"""What the judge names, and the values of each."""


def truth(one: Scene) -> list[int]:
    """Return a one-object scene's values, as places in `ATTRIBUTES`."""
    (thing,) = one.things
    values = (
        thing.kind,
        thing.colour or SEVERAL,
        thing.pattern,
        thing.size,
        thing.position,
        one.surface,
        one.time,
        one.viewpoint,
    )
    return [choices.index(value) for choices, value in zip(ATTRIBUTES.values(), values, strict=True)]


class Judge(nn.Module):
    """The network that ships with inlay, before or after its training."""

    def __init__(self):
        super().__init__()
        self.network = build(ATTRIBUTES)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits [B, values] of every attribute for images [B, 3, 64, 64] in [-1, 1]."""
        return self.network(images)

    @torch.inference_mode()
    def name(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the likeliest value of every attribute, as places [N] in `ATTRIBUTES`, for uint8 [N, 64, 64, 3]."""
        self.eval()
        device = next(self.parameters()).device
        found: dict[str, list[torch.Tensor]] = {name: [] for name in ATTRIBUTES}
        for begin in range(0, len(images), 256):
            for name, logits in self(pixels(images[begin : begin + 256], device)).items():
                found[name].append(logits.argmax(1).cpu())
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def load(folder: Path) -> Judge:
    """Return the trained judge of a folder."""
    judge = Judge()
    judge.network.load_state_dict(
        {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    )
    return judge.eval()


def worn(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images, half of them softened and grained: the judge must read samples too, which are never as crisp."""
    soft = functional.interpolate(functional.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    share = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device) * 1.6 - 0.8
    share = share.clamp(min=0.0)
    grain = torch.randn(images.shape, generator=generator).to(images.device) * 0.06
    return images * (1 - share) + soft * share + grain * (share > 0)


def alone(part: str, count: int) -> tuple[np.ndarray, torch.Tensor]:
    """Return the one-object pictures among the first of a part, uint8, and their values [N, attributes]."""
    images, _, scenes = pictures(part, count)
    chosen = [index for index, one in enumerate(scenes) if len(one.things) == 1]
    return images[chosen], torch.tensor([truth(scenes[index]) for index in chosen])


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_training(parser, 2500, batch=64, rate=2e-3)
    parser.add_argument("--out", type=Path, default=BUILD / "classifier")
    parser.add_argument("--results", type=Path, default=Path("recipes/tabletop/results/classifier.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    device = torch.device(args.device)
    images, values = alone("train", args.images)
    test, expected = alone("test", TEST)
    judge = Judge().to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=args.rate, weight_decay=0.05, fused=True)
    training = Training(
        args,
        optimizer,
        purpose="classifier/order",
        count=len(images),
        warmup=100,
        trace=BUILD / "classifier-trace.json",
        every=100,
    )
    for step, chosen in training:
        generator = stream(SEED, "classifier/augment", step)
        real = worn(shifted(pixels(images[chosen.numpy()], device), generator), generator)
        with bf16_where_fast(device):
            logits = judge(real)
        wanted = values[chosen].to(device)
        # Class and colour are what the quality figures are about; the others share the rest of the trunk's attention.
        weights = [1.0, 1.0] + [0.3] * (len(ATTRIBUTES) - 2)
        losses = [functional.cross_entropy(one.float(), wanted[:, k]) for k, one in enumerate(logits.values())]
        value = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
        training.learn(value, loss=value, kind=losses[0], colour=losses[1])
    args.out.mkdir(parents=True, exist_ok=True)
    held = {
        name: value.half() if value.is_floating_point() else value for name, value in judge.network.state_dict().items()
    }
    save_file(held, args.out / "model.safetensors")
    named = load(args.out).to(device).name(test)
    right = {name: named[name] == expected[:, k].numpy() for k, name in enumerate(ATTRIBUTES)}
    summary = {
        **training.summary(),
        "pictures": len(images),
        "parameters": sum(p.numel() for p in judge.parameters()),
        "test_pictures": len(test),
        "accuracy": {name: round(float(values.mean()), 4) for name, values in right.items()},
        "accuracy_of_class_and_colour_together": round(float((right["class"] & right["colour"]).mean()), 4),
    }
    card = {"attributes": ATTRIBUTES, "accuracy": summary["accuracy"], "test_pictures": len(test)}
    (args.out / "config.json").write_text(json.dumps(card, indent=1) + "\n")
    args.results.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
