"""What FourierFT and WaveFT share: a few learned coefficients of a transform of each layer's update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from inlay.errors import ArtifactError
from inlay.methods.peft_layers import LayerAttachment, PeftMethod, refuse_larger, saved_path, size

if TYPE_CHECKING:
    from torch import Tensor, nn


class FrequencyMethod(PeftMethod):
    """Coefficients at places that are drawn from a seed, the same number in every layer."""

    n_frequency: Annotated[int, Field(ge=1)] = 1000
    """n, the coefficients that are learned in each layer, at random places; at most inputs x outputs."""
    random_loc_seed: int = 777
    """Seed of the places, which are not saved but drawn again."""

    def attach(self, components: Mapping[str, nn.Module]) -> FrequencyAttachment:
        """Wrap the chosen layers; see :meth:`Method.attach`."""
        return FrequencyAttachment(self, *self.chosen(components))

    def refuse_more_than_fit(self, layers: Mapping[str, Any]) -> None:
        """Hold the number of coefficients against each layer.

        Raises:
            TargetError: a layer has fewer weights.
        """
        weights = {name: size(layer, "inputs") * size(layer, "outputs") for name, layer in layers.items()}
        refuse_larger("n_frequency", self.n_frequency, weights, "weights")


class FrequencyAttachment(LayerAttachment):
    """Its files state inputs and outputs of each layer too: n coefficients would fit layers of any size."""

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **self._sizes()}

    def refuse_misfit(self, state: Mapping[str, Tensor]) -> None:
        super().refuse_misfit(state)
        for name, own in self._sizes().items():
            if not own.is_meta and state[name].tolist() != own.tolist():
                inputs, outputs = (int(number) for number in state[name])
                raise ArtifactError(
                    f"the saved {self.method.name} does not fit here: layers have another shape, such as {name}: "  # pyright: ignore[reportAttributeAccessIssue]
                    f"{inputs} inputs and {outputs} outputs, here {int(own[0])} and {int(own[1])}"
                )

    def _sizes(self) -> dict[str, Tensor]:
        import torch

        return {
            f"{saved_path(path)}.sizes": torch.tensor(
                [layer.in_features, layer.out_features], dtype=torch.float32, device=layer.weight.device
            )
            for path, layer in self._layers.items()
        }
