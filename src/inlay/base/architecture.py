"""What a base is made of, known from its configuration files alone and built without weights."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.base.contract import Base, BaseArchitecture
from inlay.base.locate import BUILT_IN, CONFIGS, Location, read_json
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

PREDICTIONS = ("epsilon", "v_prediction", "sample")
TEXT_WIDTH_KEYS = tuple(
    f"model.diffusion_model.input_blocks.{block}.1.transformer_blocks.0.attn2.to_k.weight" for block in (1, 4)
)
"""The first of these tensors that a Stable Diffusion checkpoint has (4: XL) has the width of the text states as its
second axis."""


class TextArchitecture(BaseArchitecture):
    """What all families of Stable Diffusion have in common: a pipeline's configurations, as its files hold them."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    """The only text encoder, or the first."""
    scheduler: dict[str, Any]

    @property
    def downscale(self) -> int:
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    @property
    def resolution(self) -> int:
        return int(self.unet["sample_size"]) * self.downscale

    @property
    def granularity(self) -> int:
        return self.downscale * 2 ** (len(self.unet["block_out_channels"]) - 1)

    @property
    def prediction(self) -> str:
        return self.scheduler.get("prediction_type", "epsilon")

    @property
    def channels(self) -> int:
        return int(self.vae["latent_channels"])

    @property
    def one_size(self) -> bool:
        return False

    @property
    def flow(self) -> bool:
        return False

    @property
    def tokens(self) -> int:
        """Tokens of a prompt that are read, those of begin and end counted."""
        return int(self.text_encoder["max_position_embeddings"])

    @property
    def solver_of_pipeline(self) -> bool:
        return True

    def alphas_cumprod(self) -> Tensor:
        return make_scheduler(self.scheduler).alphas_cumprod

    @abstractmethod
    def build(self, part: str) -> nn.Module:
        """Return one part by its name, with weights as its class initialises them.

        Inside ``torch.device("meta")`` it takes no memory.
        """

    def meta(self) -> dict[str, nn.Module]:
        import torch

        with torch.device("meta"):
            return {part: self.build(part).requires_grad_(False) for part in ("unet", "vae", *self.readers)}


@dataclass(frozen=True)
class Architecture(TextArchitecture):
    """A Stable Diffusion 1.x or 2.x pipeline."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    scheduler: dict[str, Any]

    @property
    def readers(self) -> tuple[str, ...]:
        return ("text_encoder",)

    @property
    def prompt_ids(self) -> int:
        return self.tokens

    @property
    def guidance(self) -> float:
        return 7.0

    @property
    def text_shape(self) -> tuple[int, int]:
        return self.tokens, int(self.text_encoder["hidden_size"])

    def build(self, part: str) -> nn.Module:
        if part == "text_encoder":
            from transformers import CLIPTextConfig, CLIPTextModel

            return CLIPTextModel(CLIPTextConfig(**self.text_encoder))
        return build_latent_part(part, getattr(self, part))

    def skeleton(self, name: str) -> Base:
        from inlay.base.stable_diffusion import StableDiffusion

        return StableDiffusion(self, self.meta(), None, name)


def build_latent_part(part: str, config: dict[str, Any]) -> nn.Module:
    """Return a denoiser (`unet`) or an autoencoder (`vae`) of a configuration."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    model = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    return model.from_config(config)


def make_scheduler(config: dict[str, Any]) -> Any:
    """Return the DDPM scheduler of a pipeline's scheduler configuration, which holds the noise schedule."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config({key: value for key, value in config.items() if not key.startswith("_")})


def read_architecture(
    settings: BaseSettings, location: Location, scratch: dict[str, Any] | None = None
) -> Architecture:
    """Read a base's configuration files and apply what ``settings`` states about them.

    Args:
        settings: the base section.
        location: where the files are.
        scratch: configuration of another denoiser instead of the base's own, fitted here to the base's latents and
            text states.

    Raises:
        ConfigError: the files are not those of a Stable Diffusion 1.x or 2.x pipeline.
    """
    folder = architecture_folder(settings, location)
    configs = {part: read_json(folder / path) for part, path in CONFIGS.items() if part != "unet" or scratch is None}
    if scratch is not None:
        channels, width = configs["vae"]["latent_channels"], configs["text_encoder"]["hidden_size"]
        fitted = {"in_channels": channels, "out_channels": channels, "cross_attention_dim": width}
        configs["unet"] = {"_class_name": "UNet2DConditionModel", **scratch, **fitted}
    found = configs["unet"].get("_class_name", "UNet2DConditionModel")
    added = configs["unet"].get("addition_embed_type")
    if found != "UNet2DConditionModel" or added:
        kind = f"{found} with added embeddings ({added})" if added else found
        raise ConfigError(
            f"base.model={settings.model}: the denoiser is a {kind}; allowed: the UNet2DConditionModel of Stable "
            "Diffusion 1.x, 2.x and XL"
        )
    check_inputs(settings, configs)
    configs["scheduler"] = state_schedule(settings, configs["scheduler"])
    return Architecture(**configs)


def state_schedule(settings: BaseSettings, scheduler: dict[str, Any]) -> dict[str, Any]:
    """Return a scheduler's configuration with what the base section states about it."""
    scheduler = dict(scheduler)
    if settings.prediction != "auto":
        scheduler["prediction_type"] = settings.prediction
    if settings.zero_terminal_snr != "auto":
        scheduler["rescale_betas_zero_snr"] = settings.zero_terminal_snr
    if scheduler.get("rescale_betas_zero_snr"):
        # The last timestep holds no signal: sampling must start exactly there (arXiv 2305.08891, section 3.3).
        scheduler["timestep_spacing"] = "trailing"
    return scheduler


def check_inputs(settings: BaseSettings, configs: dict[str, dict[str, Any]]) -> None:
    """Refuse relatives of Stable Diffusion that would train, but wrongly."""
    channels, latents = configs["unet"].get("in_channels", 4), configs["vae"].get("latent_channels", 4)
    if channels != latents:
        raise ConfigError(
            f"base.model={settings.model}: the denoiser takes {channels} channels and latents have {latents}; models "
            "for inpainting, upscaling, depth or editing see more than the noisy latents and are not supported"
        )
    if "beta_start" not in configs["scheduler"] and not configs["scheduler"].get("trained_betas"):
        raise ConfigError(
            f"base.model={settings.model}: its scheduler {configs['scheduler'].get('_class_name', '')} states no "
            "schedule of betas; allowed: the discrete-time diffusion schedules of Stable Diffusion"
        )
    prediction = configs["scheduler"].get("prediction_type", "epsilon")
    if settings.prediction == "auto" and prediction not in PREDICTIONS:
        raise ConfigError(
            f"base.model={settings.model}: its scheduler says that the denoiser predicts {prediction!r}; "
            f"allowed: {', '.join(PREDICTIONS)}"
        )


def architecture_folder(settings: BaseSettings, location: Location) -> Path:
    """Return the folder with the configuration files of a base."""
    if location.kind != "checkpoint":
        return location.path
    if settings.architecture in BUILT_IN:
        return BUILT_IN[settings.architecture]
    if settings.architecture is not None:
        folder = Path(settings.architecture).expanduser()
        if not (folder / CONFIGS["unet"]).is_file():
            raise ConfigError(
                f"base.architecture={settings.architecture}: allowed are {', '.join(BUILT_IN)} and directories in "
                "diffusers' layout"
            )
        return folder
    width = _text_width(location.path)
    if width is None:
        raise ConfigError(f"base.model={settings.model}: not a checkpoint of Stable Diffusion 1.x, 2.x or XL")
    for folder in BUILT_IN.values():
        architecture = Architecture(**{part: read_json(folder / relative) for part, relative in CONFIGS.items()})
        if architecture.unet["cross_attention_dim"] != width:
            continue
        if architecture.prediction != "epsilon" and settings.prediction == "auto":
            raise ConfigError(
                f"base.model={settings.model}: a Stable Diffusion 2.x checkpoint does not say what it predicts; give "
                "base.prediction=v_prediction (the 768-pixel models) or base.prediction=epsilon (the 512-pixel ones)"
            )
        return folder
    raise ConfigError(
        f"base.model={settings.model}: text states of width {width} belong to no built-in architecture; "
        "give base.architecture"
    )


def _text_width(checkpoint: Path) -> int | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(checkpoint, framework="pt") as file:
            found = [key for key in TEXT_WIDTH_KEYS if key in file.keys()]  # noqa: SIM118 - no mapping
            return file.get_slice(found[0]).get_shape()[1] if found else None
    except SafetensorError as error:
        raise ConfigError(f"{checkpoint}: not a readable safetensors file: {error}") from None
