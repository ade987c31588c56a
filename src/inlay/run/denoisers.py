"""The run file's ``denoiser`` section: which network is trained from scratch, by the key `name`.

Each class turns its settings into a configuration as diffusers writes it. What follows from latents, classes and the
path is filled in by the base.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from inlay.settings import Settings

Width = Annotated[int, Field(ge=1)]


class _Denoiser(Settings):
    """What all of them have in common."""

    conditioned: ClassVar[tuple[str, ...]]
    """The kinds of conditioning that it can take."""

    sample_size: Annotated[int, Field(ge=1)]
    """Side of the latents, or of the pictures where there is no base."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return its configuration, with ``_class_name``."""


def _even_groups(widths: tuple[int, ...], groups: int) -> None:
    uneven = [width for width in widths if width % groups]
    if uneven:
        raise ValueError(f"norm_num_groups={groups} does not divide block_out_channels {uneven}")


class TextUNet(_Denoiser):
    """A text-conditional U-Net: arguments of diffusers' ``UNet2DConditionModel``.

    Latent channels and text width follow from the base's autoencoder and text encoder.
    """

    conditioned: ClassVar = ("text",)

    name: Literal["text_unet"] = "text_unet"
    sample_size: Annotated[int, Field(ge=1)]
    """Side of the latents."""
    block_out_channels: Annotated[tuple[Width, ...], Field(min_length=1)]
    """Width of each resolution level, finest first."""
    down_block_types: tuple[Literal["CrossAttnDownBlock2D", "DownBlock2D"], ...]
    """Kind of each level on the way down; the way up mirrors it."""
    layers_per_block: Annotated[int, Field(ge=1)] = 2
    """Residual (and transformer) blocks a level on the way down; one more on the way up."""
    attention_head_dim: Annotated[int, Field(ge=1)] = 8
    """Number of attention heads: diffusers' name for it is historical."""
    norm_num_groups: Annotated[int, Field(ge=1)] = 32
    """Groups of the group norms; must divide every width."""

    @model_validator(mode="after")
    def _consistent(self) -> TextUNet:
        if len(self.down_block_types) != len(self.block_out_channels):
            raise ValueError(
                f"{len(self.block_out_channels)} block_out_channels but {len(self.down_block_types)} down_block_types"
            )
        _even_groups(self.block_out_channels, self.norm_num_groups)
        return self

    def config(self) -> dict[str, Any]:
        up = {"CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "DownBlock2D": "UpBlock2D"}
        return {
            "_class_name": "UNet2DConditionModel",
            **self.model_dump(mode="json", exclude={"name"}),
            "up_block_types": [up[kind] for kind in reversed(self.down_block_types)],
        }


class UNet(_Denoiser):
    """A U-Net as in ADM (arXiv 2105.05233), unconditional or of classes: diffusers' ``UNet2DModel``."""

    conditioned: ClassVar = ("none", "class")

    name: Literal["unet"] = "unet"
    block_out_channels: Annotated[tuple[Width, ...], Field(min_length=1)] = (128, 256, 256, 384)
    """Width of each resolution level, finest first."""
    layers_per_block: Annotated[int, Field(ge=1)] = 2
    """Residual blocks a level on the way down; one more on the way up."""
    attention_at: tuple[Annotated[int, Field(ge=1)], ...] = (16, 8)
    """Sides of the feature maps that have self-attention; the middle always has it."""
    attention_head_dim: Annotated[int, Field(ge=1)] = 64
    """Width of an attention head."""
    norm_num_groups: Annotated[int, Field(ge=1)] = 32
    """Groups of the group norms; must divide every width."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """In residual blocks."""
    time_scale_shift: bool = True
    """The timestep scales and shifts the normed activations, as in ADM; else it is added."""
    resampling: Literal["resnet", "conv"] = "resnet"
    """Change of resolution by residual blocks, as in ADM, or by single convolutions."""

    @model_validator(mode="after")
    def _consistent(self) -> UNet:
        _even_groups(self.block_out_channels, self.norm_num_groups)
        unit = 2 ** (len(self.block_out_channels) - 1)
        if self.sample_size % unit:
            raise ValueError(f"sample_size={self.sample_size} cannot be halved {unit.bit_length() - 1} times evenly")
        sides = self.sides
        if self.attention_at and not set(self.attention_at) & set(sides) and "attention_at" in self.model_fields_set:
            raise ValueError(
                f"attention_at={list(self.attention_at)}: the levels have the sides {', '.join(map(str, sides))}"
            )
        widths = [*(width for width, on in zip(self.block_out_channels, self.attends, strict=True) if on)]
        uneven = [width for width in {*widths, self.block_out_channels[-1]} if width % self.attention_head_dim]
        if uneven:
            raise ValueError(
                f"attention_head_dim={self.attention_head_dim} does not divide the widths {sorted(uneven)}"
            )
        return self

    @property
    def sides(self) -> list[int]:
        """Side of each level, finest first."""
        return [self.sample_size >> level for level in range(len(self.block_out_channels))]

    @property
    def attends(self) -> list[bool]:
        """Whether each level has attention."""
        return [side in self.attention_at for side in self.sides]

    def config(self) -> dict[str, Any]:
        return {
            "_class_name": "UNet2DModel",
            "sample_size": self.sample_size,
            "block_out_channels": list(self.block_out_channels),
            "layers_per_block": self.layers_per_block,
            "down_block_types": ["AttnDownBlock2D" if on else "DownBlock2D" for on in self.attends],
            "up_block_types": ["AttnUpBlock2D" if on else "UpBlock2D" for on in reversed(self.attends)],
            "attention_head_dim": self.attention_head_dim,
            "norm_num_groups": self.norm_num_groups,
            "dropout": self.dropout,
            "resnet_time_scale_shift": "scale_shift" if self.time_scale_shift else "default",
            "downsample_type": self.resampling,
            "upsample_type": self.resampling,
        }


class _Transformer(_Denoiser):
    conditioned: ClassVar = ("none", "class")
    sizes: ClassVar[dict[str, tuple[int, int, int]]]
    """Depth, width and heads by name."""

    size: Literal["S", "B", "L", "XL"] | None = None
    """A size of the publication; `depth`, `width` and `heads` replace single numbers of it."""
    patch: Annotated[int, Field(ge=1)] = 2
    """Side of a patch; publications have 2, or 4 on 64 pixels."""
    depth: Annotated[int, Field(ge=1)] | None = None
    """Blocks."""
    width: Annotated[int, Field(ge=4, multiple_of=4)] | None = None
    """Numbers a token."""
    heads: Annotated[int, Field(ge=1)] | None = None
    """Attention heads; must divide the width."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """In every block's outputs."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        missing = [key for key in ("depth", "width", "heads") if self.size is None and getattr(self, key) is None]
        if missing:
            raise ValueError(f"give size (S, B, L or XL), or {', '.join(missing)}")
        _, width, heads = self.shape
        if width % heads:
            raise ValueError(f"width={width} must be a multiple of heads={heads}")
        if self.sample_size % self.patch:
            raise ValueError(f"sample_size={self.sample_size} is no multiple of patch={self.patch}")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(depth, width, heads)."""
        named = self.sizes[self.size] if self.size is not None else (0, 0, 0)
        return (self.depth or named[0], self.width or named[1], self.heads or named[2])


class ViT(_Transformer):
    """A plain vision transformer as in arXiv 2303.09556: time and class are tokens like the patches.

    S has 13 blocks of width 512, B 12 of 768, L 24 of 1024, XL 28 of 1152.
    """

    # The publication does not tell the heads of S; 8 are 64 wide as those of B and L.
    sizes: ClassVar = {"S": (13, 512, 8), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}

    name: Literal["vit"] = "vit"
    time: Literal["learned", "sinusoidal"] = "learned"
    """The token of the timestep: a learned vector each, as the publication's code has it, or waves and a small network,
    which neighbouring timesteps share and short runs learn sooner."""
    time_rows: Annotated[int, Field(ge=2)] | None = None
    """Rows of the learned vectors; by default as many as the path has timesteps. The publication's counts of parameters
    include 4,000, of which it uses 1,000."""

    @model_validator(mode="after")
    def _rows_act(self) -> ViT:
        if self.time_rows is not None and self.time != "learned":
            raise ValueError("time_rows has no effect without time=learned")
        return self

    def config(self) -> dict[str, Any]:
        depth, width, heads = self.shape
        return {
            "_class_name": "ViT",
            "sample_size": self.sample_size,
            "patch": self.patch,
            "depth": depth,
            "width": width,
            "heads": heads,
            "dropout": self.dropout,
            "time": self.time,
            "timesteps": self.time_rows,
        }


class DiT(_Transformer):
    """A diffusion transformer (arXiv 2212.09748): diffusers' ``DiTTransformer2DModel``.

    S has 12 blocks of width 384, B 12 of 768, L 24 of 1024, XL 28 of 1152. In diffusers every block embeds timestep and
    class by itself, so models have more parameters than published.
    """

    # Table 1 of the publication.
    sizes: ClassVar = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}

    name: Literal["dit"] = "dit"

    def config(self) -> dict[str, Any]:
        depth, width, heads = self.shape
        return {
            "_class_name": "DiTTransformer2DModel",
            "sample_size": self.sample_size,
            "patch_size": self.patch,
            "num_layers": depth,
            "num_attention_heads": heads,
            "attention_head_dim": width // heads,
            "dropout": self.dropout,
        }


DENOISERS: dict[str, type[_Denoiser]] = {"text_unet": TextUNet, "unet": UNet, "vit": ViT, "dit": DiT}
"""The networks by name."""


def _named(value: Any) -> Any:
    """Take a section without a name for that of a text U-Net, as run files had it before there were others."""
    if isinstance(value, dict) and "name" not in value:
        return {"name": "text_unet", **value}
    return value


AnyDenoiser = Annotated[TextUNet | UNet | ViT | DiT, Field(discriminator="name"), BeforeValidator(_named)]
