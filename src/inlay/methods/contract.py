"""What every tuning method is: a frozen description (:class:`Method`) and its live handle (:class:`Attachment`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, Literal

from inlay.errors import ArtifactError, TargetError
from inlay.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor, nn


class Method(Settings, ABC):
    """A tuning method and its settings, as a run file states them.

    A concrete method adds ``name: Literal["..."]``, its settings with a docstring each, and :meth:`attach`.
    """

    name: str
    """What run files call it."""

    result: ClassVar[Literal["adapter", "pipeline"]]
    """What a run hands back: a small file beside the base, or the whole tuned model."""
    file_name: ClassVar[str]
    """What the saved file is called, by the custom of its readers."""
    learning_rate: ClassVar[float]
    """Default of ``train.learning_rate`` under this method."""
    merges: ClassVar[bool] = True
    """Whether what it learns can be folded into the base's own weights."""

    @property
    def starts_at_base(self) -> bool:
        """Whether the base computes at step 0 what it computes without the method, bit for bit."""
        return True

    @abstractmethod
    def attach(self, components: Mapping[str, nn.Module]) -> Attachment:
        """Set the trainable parts into a base.

        Args:
            components: the base's frozen parts by name, `unet` among them; on any device, the meta device too.

        Returns:
            The handle. Its parameters are float32 and require gradients; everything else stays frozen.

        Raises:
            TargetError: the base lacks what the settings address; the base is then as it was.
        """


class Attachment(ABC):
    """A method set into a base. It owns its parameters by identity."""

    method: Method

    @property
    @abstractmethod
    def components(self) -> frozenset[str]:
        """The parts whose output it changes: what lies before none of them may be computed once and cached."""

    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the owned parameters by their names in :meth:`state`."""

    @property
    def words(self) -> Mapping[str, Sequence[int]]:
        """New words of prompts, each by the token ids under which the text encoder knows it now.

        Without any, as with most methods, prompts are read as the base reads them.
        """
        return {}

    def read(self, tokenize: Callable[[str], Sequence[int]]) -> None:  # noqa: B027 - few methods read words
        """Begin at words of the base's vocabulary, where the settings name some; called once after attaching.

        Args:
            tokenize: gives the token ids of a text, without those of begin and end.

        Raises:
            TargetError: the vocabulary does not have what the settings need, or has what should be new.
        """

    def at_step(self, step: int) -> None:  # noqa: B027 - few methods change on the way
        """Be as after ``step`` optimizer steps; called before each of them, and the last time after training."""

    @abstractmethod
    def disabled(self) -> AbstractContextManager[None]:
        """Return a context inside which the base computes as without the method, bit for bit."""

    @abstractmethod
    def merge(self) -> None:
        """Fold what was learned into the base's own weights and detach. There is no way back.

        Raises:
            TargetError: the method cannot be expressed in the base's weights, or not while another one is attached;
                nothing has changed then.
        """

    @abstractmethod
    def detach(self) -> None:
        """Take the method out. The base is then what it was before :meth:`Method.attach`, bit for bit."""

    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """Return what readers of the saved file need to know beside the tensors, for its header."""

    def state(self) -> dict[str, Tensor]:
        """Return the owned tensors as they are saved; where the file holds parameters as they are, the live ones."""
        return {name: parameter.detach() for name, parameter in self.parameters().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved tensors.

        Raises:
            ArtifactError: names or shapes differ; nothing has changed then.
        """
        import torch

        self.refuse_misfit(state)
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(state[name])

    def refuse_misfit(self, state: Mapping[str, Tensor]) -> None:
        """Compare names and shapes with those of :meth:`state`.

        Raises:
            ArtifactError: they differ.
        """
        expected = {name: tuple(value.shape) for name, value in self.state().items()}
        found = {name: tuple(value.shape) for name, value in state.items()}
        if expected != found:
            raise ArtifactError(f"the saved {self.method.name} does not fit here: {_difference(expected, found)}")


def merge_all(attachments: Sequence[Attachment]) -> None:
    """Fold several methods on one base into its weights, each as soon as none stands in its way.

    Raises:
        TargetError: what is left cannot be merged in any order; the others have been.
    """
    waiting = list(attachments)
    refused: TargetError | None = None
    while waiting:
        for attachment in waiting:
            try:
                attachment.merge()
            except TargetError as error:
                refused = error
            else:
                waiting.remove(attachment)
                break
        else:
            assert refused is not None
            raise refused


def pick(components: Mapping[str, nn.Module], wanted: Sequence[str]) -> dict[str, nn.Module]:
    """Return the wanted parts of a base.

    Raises:
        TargetError: the base lacks one of them.
    """
    absent = [name for name in wanted if name not in components]
    if absent:
        raise TargetError(f"the base has no {' and no '.join(absent)}; it has: {', '.join(components)}")
    return {name: components[name] for name in wanted}


def _difference(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> str:
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    shapes = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
    said = []
    if missing:
        said.append(f"{len(missing)} tensors are missing, such as {missing[0]}")
    if surplus:
        said.append(f"{len(surplus)} are not expected, such as {surplus[0]}")
    if shapes:
        first = shapes[0]
        said.append(f"{len(shapes)} have another shape, such as {first}: {found[first]}, here {expected[first]}")
    return "; ".join(said)
