"""Makes the autoencoder of the embedded base, 64 x 64 pixels => 8 x 8 latents, and measures it on unseen renders.

The encoder is set in closed form (`encoder.py`), the decoder is trained.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from encoder import fit_code, set_encoder
from pictures import BUILD, TEST, pictures, pixels
from training import Training, add_training, bf16_where_fast

from inlay.randomness import stream

SEED = 0
SPREAD = 0.03
"""Standard deviation of the posterior, and of the noise in training: samples then decode as cleanly as codes."""


def build(latent_channels: int) -> AutoencoderKL:
    """Return the untrained autoencoder, weights from `SEED`; residual branches begin at zero."""
    torch.manual_seed(SEED)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ResnetBlock2D):
                module.conv2.weight.zero_()
                module.conv2.bias.zero_()
        for half in (model.encoder, model.decoder):
            half.mid_block.attentions[0].to_out[0].weight.zero_()
            half.mid_block.attentions[0].to_out[0].bias.zero_()
    return model


@torch.no_grad()
def measure(model: AutoencoderKL, images) -> dict:
    """Return the mean PSNR in dB (peak 1) of uint8 images encoded to the mean and decoded, and the latents' scale."""
    model.eval()
    device = next(model.parameters()).device
    ratios, codes = [], []
    for begin in range(0, len(images), 32):
        real = pixels(images[begin : begin + 32], device)
        with bf16_where_fast(device):
            latents = model.encode(real).latent_dist.mean
            output = model.decode(latents).sample
        output = ((output.float().clamp(-1, 1) + 1) * 127.5).round()
        error = ((output - (real + 1) * 127.5) / 255).square().mean((1, 2, 3))
        ratios.append((-10 * torch.log10(error)).cpu())
        codes.append(latents.float().cpu())
    values, latents = torch.cat(ratios), torch.cat(codes)
    model.train()
    return {
        "psnr_mean": values.mean().item(),
        "psnr_p05": values.quantile(0.05).item(),
        "images": len(images),
        "latent_std": latents.std().item(),
        "latent_mean": latents.mean().item(),
        "channel_std": [round(value, 4) for value in latents.std((0, 2, 3)).tolist()],
        "channel_mean": [round(value, 4) for value in latents.mean((0, 2, 3)).tolist()],
    }


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_training(parser, 5000, batch=8, rate=2e-3)
    parser.add_argument("--latent-channels", type=int, default=24)
    parser.add_argument("--out", type=Path, default=BUILD / "autoencoder")
    parser.add_argument("--results", type=Path, default=Path("recipes/tabletop/results/autoencoder.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    images, _, _ = pictures("train", args.images)
    test, _, _ = pictures("test", TEST)
    model = build(args.latent_channels)
    code, facts = fit_code(images[:8000], args.latent_channels)
    set_encoder(model, code, SPREAD)
    model.save_pretrained(args.out / "vae")
    model.to(device)
    print(json.dumps(facts), flush=True)
    learnt = [*model.post_quant_conv.parameters(), *model.decoder.parameters()]
    optimizer = torch.optim.AdamW(learnt, lr=args.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    training = Training(
        args,
        optimizer,
        purpose="autoencoder/order",
        count=len(images),
        warmup=50,
        trace=args.out / "trace.json",
        clipped=learnt,
    )
    for step, chosen in training:
        batch = images[chosen.numpy()]
        latents = torch.from_numpy(code(batch))
        noise = torch.randn(latents.shape, generator=stream(SEED, "autoencoder/noise", step))
        with bf16_where_fast(device):
            output = model.decode((latents + SPREAD * noise).to(device)).sample
        error = output.float() - pixels(batch, device)
        value = error.abs().mean()
        training.learn(value, loss=value, squared_error=error.detach().square().mean())
        if (step + 1) % 500 == 0:
            print(json.dumps({"psnr": measure(model, test[:128])["psnr_mean"]}), flush=True)
            model.save_pretrained(args.out / "vae")
    found = measure(model, test)
    model.save_pretrained(args.out / "vae")
    summary = {
        **training.summary(),
        "rate": args.rate,
        "pictures": args.images,
        "threads": args.threads,
        "parameters": sum(p.numel() for p in model.parameters()),
        "encoder_parameters": sum(p.numel() for p in model.encoder.parameters()),
        "decoder_parameters": sum(p.numel() for p in model.decoder.parameters()),
        "code": facts,
        "test": found,
    }
    args.results.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
