"""Complete Stable Diffusion pipelines that are made in about a second and fit in a megabyte.

Their parts are real ones (a byte-level CLIP tokenizer, a CLIP text encoder, an autoencoder, a U-Net with cross
attention), with weights drawn from a seed. Norms and biases are drawn too, so that exchanging two of them shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

WORDS = ["photo", "picture", "of", "dog", "red", "ball", "table", "the", "sks"]
"""Words of one token each; every other word is spelled in letters."""
RESOLUTION = 32
"""Side in pixels of a tiny pipeline's pictures; its latents have a quarter of it."""


def make_tiny_pipeline(
    directory: Path,
    prediction_type: str = "epsilon",
    second: bool = False,
    seed: int = 0,
    **scheduler: Any,
) -> Path:
    """Write a pipeline in diffusers' layout.

    Args:
        directory: where to; made when absent.
        prediction_type: what its scheduler says the U-Net predicts.
        second: with what sets Stable Diffusion 2.x apart: linear projections around the transformer, heads by
            level, wider text states and GELU in the text encoder.
        seed: of the weights.
        scheduler: more of the scheduler's configuration, such as ``rescale_betas_zero_snr=True``.

    Returns:
        ``directory``.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        tokenizer=_tokenizer(),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction_type,
            steps_offset=1,
            clip_sample=False,
            set_alpha_to_one=False,
            **scheduler,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **make_tiny_components(second=second, seed=seed),
    )
    pipeline.save_pretrained(directory, safe_serialization=True)
    return directory


def make_tiny_components(second: bool = False, seed: int = 0) -> dict[str, Any]:
    """Return the frozen parts of a tiny pipeline: `unet`, `vae`, `text_encoder`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text_width = 64 if second else 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, nn.Module] = {
            "unet": UNet2DConditionModel(
                sample_size=RESOLUTION // 4,
                block_out_channels=(32, 64),
                layers_per_block=1,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                cross_attention_dim=text_width,
                attention_head_dim=(2, 4) if second else 4,
                use_linear_projection=second,
                norm_num_groups=8,
            ),
            "vae": AutoencoderKL(
                block_out_channels=(8, 16, 16),
                down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=RESOLUTION,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(_vocabulary()),
                    hidden_size=text_width,
                    intermediate_size=2 * text_width,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    max_position_embeddings=77,
                    hidden_act="gelu" if second else "quick_gelu",
                    projection_dim=text_width,
                    bos_token_id=len(_vocabulary()) - 2,
                    eos_token_id=len(_vocabulary()) - 1,
                    pad_token_id=len(_vocabulary()) - 1,
                )
            ),
        }
        for module in parts.values():
            for parameter in module.parameters():
                if parameter.dim() == 1:
                    parameter.data += 0.1 * torch.randn_like(parameter)
    return {name: module.requires_grad_(False).eval() for name, module in parts.items()}


def make_tiny_xl_components() -> dict[str, Any]:
    """Return the frozen parts of a pipeline with everything that sets Stable Diffusion XL apart."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def text(width: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(_vocabulary()),
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=24,
            bos_token_id=len(_vocabulary()) - 2,
            eos_token_id=len(_vocabulary()) - 1,
            pad_token_id=len(_vocabulary()) - 1,
        )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts: dict[str, nn.Module] = {
            "unet": UNet2DConditionModel(
                sample_size=RESOLUTION // 4,
                block_out_channels=(16, 32, 32),
                layers_per_block=2,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2, 3),
                attention_head_dim=(2, 4, 4),
                use_linear_projection=True,
                cross_attention_dim=48,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 24,
                norm_num_groups=8,
            ),
            "vae": make_tiny_components()["vae"],
            "text_encoder": CLIPTextModel(text(16)),
            "text_encoder_2": CLIPTextModelWithProjection(text(32)),
        }
    return {name: module.requires_grad_(False).eval() for name, module in parts.items()}


def make_tiny_xl_pipeline(directory: Path) -> Path:
    """Write :func:`make_tiny_xl_components` as a pipeline in diffusers' layout and return ``directory``."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline(
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(pad_token="!"),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
        **make_tiny_xl_components(),
    )
    pipeline.save_pretrained(directory, safe_serialization=True)
    return directory


def make_tiny_xl_checkpoint(directory: Path) -> Path:
    """Write the weights of :func:`make_tiny_xl_pipeline` as one file, named as the original code names them.

    Returns:
        ``directory / "model.safetensors"``.
    """
    parts = make_tiny_xl_components()
    second = _text_to_open_clip(parts["text_encoder_2"], "conditioner.embedders.1.model.")
    second["conditioner.embedders.1.model.text_projection"] = parts["text_encoder_2"].text_projection.weight.T
    first = {
        key.replace("cond_stage_model", "conditioner.embedders.0"): value
        for key, value in _text_to_ldm(parts["text_encoder"]).items()
    }
    state = {
        **{f"model.diffusion_model.{key}": value for key, value in _unet_to_ldm(parts["unet"]).items()},
        **{f"first_stage_model.{key}": value for key, value in _vae_to_ldm(parts["vae"]).items()},
        **first,
        **second,
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.safetensors"
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    return path


def _pairs() -> list[tuple[str, str]]:
    """Return the merges that spell every word of WORDS from its letters, left to right."""
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        letters = [*word[:-1], word[-1] + "</w>"]
        for end in range(1, len(letters)):
            pair = ("".join(letters[:end]), letters[end])
            if pair not in merges:
                merges.append(pair)
    return merges


def _vocabulary() -> dict[str, int]:
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    merged = dict.fromkeys(first + second for first, second in _pairs())
    tokens: Iterable[str] = dict.fromkeys(
        [*characters, *(character + "</w>" for character in characters), *merged, "<|startoftext|>", "<|endoftext|>"]
    )
    return {token: index for index, token in enumerate(tokens)}


def _tokenizer(**special: str) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=_vocabulary(), merges=_pairs(), model_max_length=77, **special)


def make_tiny_checkpoint(directory: Path, second: bool = False, seed: int = 0) -> Path:
    """Write the weights of :func:`make_tiny_pipeline` as one file, named as the original code names them.

    Returns:
        ``directory / "model.safetensors"``.
    """
    parts = make_tiny_components(second=second, seed=seed)
    state = {
        **{f"model.diffusion_model.{key}": value for key, value in _unet_to_ldm(parts["unet"]).items()},
        **{f"first_stage_model.{key}": value for key, value in _vae_to_ldm(parts["vae"]).items()},
        **(_text_to_open_clip if second else _text_to_ldm)(parts["text_encoder"]),
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.safetensors"
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    return path


_UNET_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TEXT_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def _unet_to_ldm(unet: Any) -> dict[str, Tensor]:
    """Count blocks through, as the original code does: a level's layers, then its change of resolution."""
    depth = unet.config.layers_per_block + 1
    renamed = {}
    for key, value in unet.state_dict().items():
        if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", key):
            side, level, kind, layer, rest = match.groups()
            number = int(level) * depth + int(layer)
            block = f"input_blocks.{1 + number}" if side == "down" else f"output_blocks.{number}"
            key = f"{block}.{0 if kind == 'resnets' else 1}.{rest}"
        elif match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", key):
            key = f"input_blocks.{(int(match[1]) + 1) * depth}.0.op.{match[2]}"
        elif match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.*)", key):
            place = 2 if hasattr(unet.up_blocks[int(match[1])], "attentions") else 1
            key = f"output_blocks.{int(match[1]) * depth + depth - 1}.{place}.conv.{match[2]}"
        else:
            for ours, theirs in _UNET_TOP.items():
                key = re.sub(rf"^{re.escape(ours)}\.", f"{theirs}.", key)
        if re.match(r"(input_blocks|output_blocks)\.\d+\.0\.|middle_block\.[02]\.", key):
            for ours, theirs in _UNET_RESNET.items():
                key = key.replace(f".{ours}.", f".{theirs}.")
        renamed[key] = value
    return renamed


def _vae_to_ldm(vae: Any) -> dict[str, Tensor]:
    """Name levels from the finest on both sides; the attention's projections are convolutions of size 1."""
    levels = len(vae.config.block_out_channels)
    renamed = {}
    for key, value in vae.state_dict().items():
        key = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
        key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", key)
        key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        if match := re.fullmatch(r"(.*)mid_block\.attentions\.0\.(.*)\.(weight|bias)", key):
            place, layer, kind = match.groups()
            name = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}[layer]
            key = f"{place}mid.attn_1.{name}.{kind}"
            value = value[:, :, None, None] if value.dim() == 2 else value
        renamed[key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")] = value
    return renamed


def _text_to_ldm(text_encoder: nn.Module) -> dict[str, Tensor]:
    """Stable Diffusion 1.x holds transformers' CLIP of its time, position indices included."""
    prefix = "cond_stage_model.transformer.text_model."
    renamed = {prefix + key.removeprefix("text_model."): value for key, value in text_encoder.state_dict().items()}
    return {**renamed, f"{prefix}embeddings.position_ids": torch.arange(77)[None]}


def _text_to_open_clip(text_encoder: Any, prefix: str = "cond_stage_model.model.") -> dict[str, Tensor]:
    """Stable Diffusion 2.x holds OpenCLIP: queries, keys and values in one matrix, and layers that it does not use."""
    state = {key.removeprefix("text_model."): value for key, value in text_encoder.state_dict().items()}
    width = text_encoder.config.hidden_size
    renamed = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": torch.eye(width),
        "logit_scale": torch.tensor(4.6),
    }
    for layer in range(text_encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            joined = [state[f"{ours}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            renamed[f"{theirs}attn.in_proj_{kind}"] = torch.cat(joined)
            for name, other in _TEXT_LAYER.items():
                renamed[f"{theirs}{other}.{kind}"] = state[f"{ours}{name}.{kind}"]
    if prefix.startswith("cond_stage_model"):
        # The real files have a 24th layer whose output Stable Diffusion 2.x leaves aside.
        renamed["transformer.resblocks.23.ln_1.weight"] = torch.ones(width)
    return {f"{prefix}{key}": value for key, value in renamed.items()}
