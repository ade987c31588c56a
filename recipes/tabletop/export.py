"""Puts the parts of the embedded base together as a diffusers pipeline directory in half precision."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from denoiser import STAGES
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from pictures import BUILD
from safetensors.torch import save_file
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from inlay.base.text_to_image import compute_in_float32

BASE = Path("src/inlay/base/tabletop")
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
"""The image tower lies beside the pipeline but is none of its components: those of Stable Diffusion 1.x have none."""
SCHEDULER = DDIMScheduler(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    prediction_type="epsilon",
    steps_offset=1,
    clip_sample=False,
    set_alpha_to_one=False,
)
"""The schedule of Stable Diffusion 1.x."""


def export_clip(folder: Path, base: Path) -> None:
    """Write the text tower, the image tower with its projection, and the text projection."""
    model = CLIPModel.from_pretrained(folder)
    text = CLIPTextModel(model.config.text_config)
    text.load_state_dict(model.text_model.state_dict())
    text.half().save_pretrained(base / "text_encoder")
    image = CLIPVisionModelWithProjection(model.config.vision_config)
    image.vision_model.load_state_dict(model.vision_model.state_dict())
    image.visual_projection.load_state_dict(model.visual_projection.state_dict())
    image.half().save_pretrained(base / "image_encoder")
    for tower in ("text_encoder", "image_encoder"):
        compute_in_float32(base / tower)
    projection = {
        "text_projection.weight": model.text_projection.weight.detach().half().contiguous(),
        "logit_scale": model.logit_scale.detach().float(),
    }
    save_file(projection, base / "image_encoder" / "text_projection.safetensors")


def put_in_place(made: Path, base: Path) -> None:
    """Move every file of a folder into the base, each in one step: who reads the base meanwhile sees whole files."""
    for path in sorted(made.rglob("*")):
        if path.is_file():
            target = base / path.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.chmod(0o644)
            path.replace(target)


def main() -> None:
    """Write every part whose build folder exists."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=BASE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = BUILD / "export"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    if (BUILD / "tokenizer").exists():
        shutil.copytree(BUILD / "tokenizer", made / "tokenizer")
    if (BUILD / "autoencoder" / "vae").exists():
        AutoencoderKL.from_pretrained(BUILD / "autoencoder" / "vae").half().save_pretrained(made / "vae")
    for clip in (BUILD / "clip-refined" / "model", BUILD / "clip" / "model"):
        if clip.exists():
            export_clip(clip, made)
            break
    for stage in reversed(STAGES):
        trained = BUILD / stage / "pipeline"
        if (trained / "unet").exists():
            UNet2DConditionModel.from_pretrained(trained / "unet").half().save_pretrained(made / "unet")
            # What the denoiser predicts is known from its training.
            DDIMScheduler.from_pretrained(trained / "scheduler").save_pretrained(made / "scheduler")
            break
    else:
        if not (args.base / "scheduler").exists():
            SCHEDULER.save_pretrained(made / "scheduler")
    (made / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    put_in_place(made, args.base)
    total = sum(path.stat().st_size for path in args.base.rglob("*") if path.is_file())
    print(f"{args.base}: {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
