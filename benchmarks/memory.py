"""Peak memory of LoRA steps: what `inlay plan` counts, what is measured, and what the same by plain PEFT takes.

Each in a process of its own: `inlay plan --probe`, which takes two real steps, for what a run file can switch on; and a
loop written after the public recipe for LoRA with diffusers and PEFT, on latents and text states that are given to it.
The U-Net has the structure of Stable Diffusion 1.x at two fifths of its width, with weights drawn at random: memory
does not depend on them. On a CPU the measure is the largest resident size, Python and the libraries among it.

    python benchmarks/memory.py [--resolution 384] [--batch 1] [--settings 4]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Nothing heavy is imported here, so that the process of the plain loop holds what that needs and no more.

RANK = 8
LORA = {"method": {"name": "lora", "rank": RANK}}
SETTINGS: dict[str, dict[str, Any]] = {
    "LoRA": LORA,
    "LoRA, 8 bits": {**LORA, "quantize": "int8"},
    "LoRA, gradient checkpointing": {**LORA, "gradient_checkpointing": True},
    "full": {"method": {"name": "full"}},
}


def make_base(directory: Path) -> None:
    """Save a base with the embedded base's text encoder, and denoiser and autoencoder with weights drawn at random."""
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    import inlay.base

    embedded = Path(inlay.base.__file__).parent / "tabletop"
    pipeline: Any = StableDiffusionPipeline.from_pretrained(embedded, safety_checker=None)
    torch.manual_seed(0)
    width = pipeline.text_encoder.config.hidden_size
    pipeline.unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(128, 256, 512, 512), cross_attention_dim=width, attention_head_dim=8
    )
    pipeline.vae = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128),  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        latent_channels=4,
        sample_size=512,
    )
    pipeline.save_pretrained(directory)


def take_plain_steps(base: Path, resolution: int, batch: int) -> int:
    """Take two steps the plain way in this process, and return its largest resident size in bytes."""
    import torch
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    from inlay.train.peak import peak_bytes

    unet = UNet2DConditionModel.from_pretrained(base / "unet").requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    side, width = resolution // 8, unet.config.cross_attention_dim  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(2):
        noise = torch.randn(batch, 4, side, side)
        output = unet(noise, torch.randint(0, 1000, (batch,)), torch.randn(batch, 77, width)).sample
        torch.nn.functional.mse_loss(output, noise).backward()
        optimizer.step()
        optimizer.zero_grad()
    return peak_bytes(torch.device("cpu"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--resolution", type=int, default=384)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="how many, from the first")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain is not None:
        print(take_plain_steps(args.plain, args.resolution, args.batch))
        return
    from tuning_step import make_pictures

    with tempfile.TemporaryDirectory() as directory:
        base, pictures, run_file = (Path(directory) / name for name in ("base", "pictures", "run.yaml"))
        make_base(base)
        make_pictures(pictures, 2 * args.batch)
        print(f"{'MiB':30} counted  measured")
        peaks = {}
        for name, changes in list(SETTINGS.items())[: args.settings]:
            changes = dict(changes)
            run = {
                "base": str(base),
                "data": {"source": str(pictures), "prompt": "a photo of a ball", "resolution": args.resolution},
                "method": changes.pop("method"),
                "train": {"steps": 2, "batch_size": args.batch, "trackers": [], **changes},
                "preview": {"pictures": 1, "steps": 1},
            }
            run_file.write_text(json.dumps(run), encoding="utf-8")
            command = [Path(sys.executable).with_name("inlay"), "plan", run_file, "--probe", "--json"]
            plan = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            counted, peaks[name] = plan["memory"]["training_bytes"], plan["probe"]["peak_bytes"]
            print(f"{name:30} {counted / 2**20:7.0f}  {peaks[name] / 2**20:8.0f}", flush=True)
        this = [sys.executable, __file__, "--plain", str(base)]
        this += ["--resolution", str(args.resolution), "--batch", str(args.batch)]
        plain = int(subprocess.run(this, check=True, capture_output=True).stdout)
    print(f"{'LoRA by plain PEFT':30} {'':7}  {plain / 2**20:8.0f}")
    ratio = peaks["LoRA"] / plain
    print(f"inlay's LoRA takes {ratio:.2f} of what plain PEFT takes, at {args.resolution} px, batch {args.batch}")


if __name__ == "__main__":
    main()
