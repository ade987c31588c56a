"""Full tuning: train the base's own weights, all of them or chosen parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from inlay.errors import TargetError
from inlay.methods.contract import Attachment, Method, pick
from inlay.methods.targets import Expression

if TYPE_CHECKING:
    from torch import Tensor, nn

Part = Literal["unet", "text_encoder", "text_encoder_2"]


class Full(Method):
    """Train the base's own weights: the whole denoiser, or the parameters that a pattern chooses."""

    name: Literal["full"] = "full"
    components: Annotated[tuple[Part, ...], Field(min_length=1)] = ("unet",)
    """Which parts of the base train; `text_encoder_2` is the second one of Stable Diffusion XL."""
    parameters: Expression | None = None
    r"""Regular expression that a parameter's name must contain, for instance `attn2\.to_[kv]` for the keys and values
    of cross-attention as in Custom Diffusion (arXiv 2212.04488), or `norm`. By default all."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "pipeline"
    file_name: ClassVar[str] = "full.safetensors"
    learning_rate: ClassVar[float] = 1e-5

    def attach(self, components: Mapping[str, nn.Module]) -> FullAttachment:
        """Let the chosen parameters train, keeping a copy of them for :meth:`FullAttachment.detach`."""
        chosen: dict[str, nn.Parameter] = {}
        for component, root in pick(components, self.components).items():
            # Wrapped layers keep their names; what another method trains is not the base's, or is trained already.
            named = {name.replace(".base_layer", ""): parameter for name, parameter in root.named_parameters()}
            frozen = {name: parameter for name, parameter in named.items() if not parameter.requires_grad}
            found = {name: frozen[name] for name in frozen if re.search(self.parameters or "", name)}
            if not found and len(frozen) == 0:
                raise TargetError(f"full: another method trains all of the base's {component} already")
            if not found:
                raise TargetError(
                    f"method.parameters={self.parameters!r} is found in no name of a frozen parameter of {component}; "
                    f"names look like {next(iter(frozen))}"
                )
            chosen |= {f"{component}.{name}": parameter for name, parameter in found.items()}
        return FullAttachment(self, chosen)


class FullAttachment(Attachment):
    """Base weights that train. A copy of the originals stays in their own precision on the CPU."""

    def __init__(self, method: Full, chosen: dict[str, nn.Parameter]):
        """Take ownership of parameters; they become float32, so that small updates are not rounded away."""
        import torch

        self.method = method
        self._chosen = chosen
        self._originals: dict[str, Tensor] = {}
        for name, parameter in chosen.items():
            self._originals[name] = parameter.detach().to("cpu" if not parameter.is_meta else "meta", copy=True)
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(True)

    @property
    def components(self) -> frozenset[str]:
        return frozenset(name.partition(".")[0] for name in self._chosen)

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self._chosen)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        tuned = {name: parameter.data for name, parameter in self._chosen.items()}
        self._restore()
        try:
            yield
        finally:
            for name, parameter in self._chosen.items():
                parameter.data = tuned[name]

    def merge(self) -> None:
        for parameter in self._chosen.values():
            parameter.requires_grad_(False)
            parameter.grad = None
        self._chosen = {}
        self._originals = {}

    def detach(self) -> None:
        self._restore()
        self.merge()

    def metadata(self) -> dict[str, str]:
        return {}

    def _restore(self) -> None:
        for name, parameter in self._chosen.items():
            parameter.data = self._originals[name].to(parameter.device)
