"""Diffusion models without text: of pixels or of an autoencoder's latents, unconditional or of classes.

The denoiser is diffusers' ``UNet2DModel`` or ``DiTTransformer2DModel``, or our own :class:`inlay.base.vit.ViT`. Saved,
it is a directory in diffusers' layout with a file `inlay.json` that names the classes. Shapes as in
:mod:`inlay.base.contract`; conditions are class numbers int64 [B, 1], or nothing, [B, 0].
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inlay.base.contract import Base, BaseArchitecture
from inlay.base.locate import PLAIN, read_json
from inlay.base.scratch import CLASS_GUIDANCE, Scratch, scheduler_config
from inlay.base.settings import PathSettings
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDERS = {"UNet2DModel": "unet", "DiTTransformer2DModel": "transformer", "ViT": "transformer"}
"""The denoisers, and in which folder each is saved."""
IMAGENET = 1000
"""Classes of the only models that diffusers' DiT pipeline knows: its null class has this number."""


@dataclass(frozen=True)
class PlainArchitecture(BaseArchitecture):
    """The configurations of a model without text."""

    denoiser: Mapping[str, Any]
    """Complete, with ``_class_name``."""
    vae: Mapping[str, Any] | None
    """Of the autoencoder; None for a model of pixels."""
    scheduler: Mapping[str, Any]
    conditioning: Literal["none", "class"]
    classes: tuple[str, ...]
    """Names of the classes; class n + 1, of n, is the one that guidance leads away from."""

    @property
    def kind(self) -> str:
        """Class name of the denoiser."""
        return self.denoiser["_class_name"]

    @property
    def downscale(self) -> int:
        return 1 if self.vae is None else 2 ** (len(self.vae["block_out_channels"]) - 1)

    @property
    def channels(self) -> int:
        return latent_channels(self.vae)

    @property
    def resolution(self) -> int:
        return int(self.denoiser["sample_size"]) * self.downscale

    @property
    def granularity(self) -> int:
        own = {"ViT": "patch", "DiTTransformer2DModel": "patch_size"}
        unit = (
            self.denoiser[own[self.kind]] if self.kind in own else 2 ** (len(self.denoiser["block_out_channels"]) - 1)
        )
        return self.downscale * unit

    @property
    def one_size(self) -> bool:
        return self.kind == "ViT"

    @property
    def prediction(self) -> str:
        return self.scheduler["inlay_prediction" if self.flow else "prediction_type"]

    @property
    def flow(self) -> bool:
        return "inlay_prediction" in self.scheduler

    @property
    def timesteps(self) -> int:
        """T, steps of the path."""
        return int(self.scheduler["num_train_timesteps"])

    @property
    def text_shape(self) -> None:
        return None

    @property
    def readers(self) -> tuple[str, ...]:
        return ()

    @property
    def prompt_ids(self) -> int:
        return 1 if self.conditioning == "class" else 0

    @property
    def guidance(self) -> float:
        return CLASS_GUIDANCE if self.conditioning == "class" else 1.0

    @property
    def solver_of_pipeline(self) -> bool:
        return False

    def build(self) -> nn.Module:
        """Return the denoiser as it begins; inside ``torch.device("meta")`` it takes no memory."""
        import torch
        from diffusers.models.embeddings import LabelEmbedding

        denoiser: Any = denoiser_class(self.kind).from_config(dict(self.denoiser))
        if self.kind == "DiTTransformer2DModel":
            for block in denoiser.transformer_blocks:
                # Blocks begin as identities (Peebles and Xie 2023, arXiv 2212.09748, section 3.2).
                torch.nn.init.zeros_(block.norm1.linear.weight)
                torch.nn.init.zeros_(block.norm1.linear.bias)
            torch.nn.init.zeros_(denoiser.proj_out_2.weight)
        for module in denoiser.modules():
            if isinstance(module, LabelEmbedding):
                # It would drop labels by itself, in every block another; `data.caption_dropout` decides that.
                module.dropout_prob = 0.0
        return denoiser

    def meta(self) -> dict[str, nn.Module]:
        import torch
        from diffusers import AutoencoderKL

        with torch.device("meta"):
            parts: dict[str, Any] = {"unet": self.build()}
            if self.vae is not None:
                parts["vae"] = AutoencoderKL.from_config(dict(self.vae))
        return {name: part.requires_grad_(False) for name, part in parts.items()}

    def skeleton(self, name: str) -> Base:
        from inlay.base.plain_model import PlainDiffusion

        return PlainDiffusion(self, self.meta(), name)

    def alphas_cumprod(self) -> Tensor:
        from inlay.base.architecture import make_scheduler

        return make_scheduler(dict(self.scheduler)).alphas_cumprod

    def class_number(self, prompt: str) -> int:
        """Return the number of a class by its name, or by its number written out; the empty name is no class.

        Raises:
            ConfigError: there is no such class.
        """
        if not prompt:
            return len(self.classes)
        if prompt in self.classes:
            return self.classes.index(prompt)
        if prompt.isdecimal() and int(prompt) < len(self.classes):
            return int(prompt)
        near = get_close_matches(prompt, self.classes, 1)
        shown = ", ".join(self.classes[:12]) + (" ..." if len(self.classes) > 12 else "")
        raise ConfigError(
            f"class {prompt!r}: this model does not know it"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f" (allowed: {shown}, or a number from 0 to {len(self.classes) - 1})"
        )


def denoiser_class(name: str) -> Any:
    """Return a denoiser's class by its name."""
    if name == "ViT":
        from inlay.base.vit import ViT

        return ViT
    import diffusers

    return getattr(diffusers, name)


def latent_channels(vae: Mapping[str, Any] | None) -> int:
    """Return how many channels the denoiser sees: three without an autoencoder."""
    return 3 if vae is None else int(vae["latent_channels"])


def plain_architecture(scratch: Scratch, vae: Mapping[str, Any] | None, own: Mapping[str, Any]) -> PlainArchitecture:
    """Return the architecture of a model from scratch.

    Args:
        scratch: what to initialise.
        vae: configuration of the base's autoencoder; None for a model of pixels.
        own: configuration of the base's scheduler, for a path that is not stated; empty without a base.
    """
    prediction = scratch.prediction
    if scratch.path is None and own:
        scheduler = dict(own) if prediction == "auto" else {**own, "prediction_type": prediction}
    else:
        scheduler = scheduler_config(scratch.path or PathSettings(), prediction, pixels=vae is None)
    channels, count = latent_channels(vae), len(scratch.classes)
    both = {"in_channels": channels, "out_channels": channels}
    # A flow's timesteps are counted from 1, as diffusers' schedulers count them.
    steps = int(scheduler["num_train_timesteps"]) + ("inlay_prediction" in scheduler)
    fitted: dict[str, dict[str, Any]] = {
        "UNet2DModel": {**both, "num_class_embeds": count + 1 if count else None},
        # It always wants a class: without any, all pictures are of one.
        "DiTTransformer2DModel": {**both, "num_embeds_ada_norm": max(1, count)},
        "ViT": {"channels": channels, "classes": count, "timesteps": steps},
    }
    kind = scratch.denoiser["_class_name"]
    stated = {key: value for key, value in scratch.denoiser.items() if value is not None}
    assert scratch.conditioning != "text"
    return PlainArchitecture({**fitted[kind], **stated}, vae, scheduler, scratch.conditioning, scratch.classes)


def read_plain(directory: Path) -> PlainArchitecture:
    """Read what :meth:`inlay.base.plain_model.PlainDiffusion.save_pipeline` has written.

    Raises:
        ConfigError: a file is missing or broken.
    """
    said = read_json(directory / PLAIN)
    kind, conditioning = said.get("denoiser"), said.get("conditioning")
    if kind not in FOLDERS or conditioning not in ("none", "class"):
        raise ConfigError(f"{directory / PLAIN}: names no model that this version of inlay knows")
    vae = directory / "vae" / "config.json"
    return PlainArchitecture(
        read_json(directory / FOLDERS[kind] / "config.json"),
        read_json(vae) if vae.is_file() else None,
        {**read_json(directory / "scheduler" / "scheduler_config.json"), **said.get("scheduler", {})},
        conditioning,
        tuple(said.get("classes", ())),
    )


def manifest(architecture: PlainArchitecture) -> str:
    """Return the content of the file `inlay.json`."""
    flow = {"inlay_prediction": architecture.prediction} if architecture.flow else {}
    said = {
        "denoiser": architecture.kind,
        "conditioning": architecture.conditioning,
        "classes": list(architecture.classes),
        "scheduler": flow,
    }
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def pixels_hash() -> str:
    """Return the SHA-256 that stands for an encoder which changes nothing."""
    return hashlib.sha256(b"pixels").hexdigest()
