"""(IA)^3 (arXiv 2205.05638): one learned factor for each channel of keys, values and the feed-forward's middle."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from inlay.methods.peft_layers import Form, PeftMethod
from inlay.methods.targets import Kind, Targets

if TYPE_CHECKING:
    from peft import IA3Config


class IA3(PeftMethod):
    """Multiplies what chosen layers give, or take, by a learned factor a channel; all are 1 at first: the base."""

    name: Literal["ia3"] = "ia3"
    targets: Targets = ("to_k", "to_v", "ff.net.2")
    """Layers of the denoiser, see `inlay methods lora`. By default those of the publication: keys, values, and the
    feed-forward's second layer."""
    feedforward: tuple[str, ...] = ("ff.net.2",)
    """Name endings of the layers among them whose inputs are scaled; of all others it is the outputs, bias included."""

    file_name: ClassVar[str] = "ia3.safetensors"
    learning_rate: ClassVar[float] = 1e-2
    wraps: ClassVar[Kind] = "convolutional"

    @property
    def form(self) -> Form:
        return "around"

    def peft_config(self, names: list[str], pattern: str) -> IA3Config:
        from peft import IA3Config

        places = [i for i, name in enumerate(names) if any(f".{name}".endswith(f".{end}") for end in self.feedforward)]
        # PEFT knows the layers by their numbers while it wraps them; in a file they have their names.
        inside = "|".join(f"layer{place}" for place in places) if pattern else [names[place] for place in places]
        return IA3Config(target_modules=pattern or list(names), feedforward_modules=inside or [])
