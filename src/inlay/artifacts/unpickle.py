"""Pickled files of other tools, read by restricted means: tensors and plain containers, nothing that can run."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

from inlay.errors import ArtifactError

NO_PICKLE = "broken, or not a file of tensors that torch.save made"


class _ParameterDict:
    """What stands in for torch's class of that name, in which the first textual-inversion files hold their vectors.

    The pickled attributes are taken over as they are; no code of the real class runs.
    """


_PARAMETER_DICT = (_ParameterDict, "torch.nn.modules.container.ParameterDict")


def read_pickle(path: Path) -> Any:
    """Return what a file that ``torch.save`` made holds, tensors on the CPU and detached.

    Tensors, numbers, texts and their lists, tuples, sets and mappings are read. Everything else a pickle can ask for,
    any call to any function, is refused before it happens.

    Raises:
        ArtifactError: there is no such file, it is no such pickle, or it holds more than data.
    """
    import torch

    try:
        # torch warns of pickles that others than itself have made; they are read, or refused, all the same.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([_PARAMETER_DICT]):
            return _plain(torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        raise ArtifactError(f"{path}: {_reason(str(error))}") from None
    except Exception:  # what torch's parser stumbles over in bytes that are anything
        raise ArtifactError(f"{path}: {NO_PICKLE}") from None


def _plain(value: Any) -> Any:
    """Put dictionaries in the place of parameter dictionaries, and detached tensors in that of parameters."""
    import torch

    if isinstance(value, _ParameterDict):
        return _plain(dict(vars(value).get("_parameters", {})))
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(inner) for inner in value)
    return value


def _reason(said: str) -> str:
    """Return torch's refusal without its advice to switch the protection off."""
    named = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", said)
    if named is None:
        return NO_PICKLE
    return (
        f"refused: it asks for {named[1] or named[2]}, and only tensors and plain containers are read; a pickle that "
        "asks for more can run code. Where you trust it, convert it to safetensors with the tool that made it"
    )
