"""Keep other libraries' chatter off the terminal."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Silence notices that a user of inlay can do nothing about; call before the libraries are imported.

    transformers announces at import that it falls back to Pillow without torchvision, which inlay never needs; the
    weight loaders draw bars of their own. Errors still come through.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for library in ("transformers", "diffusers", "accelerate", "torch.distributed"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|diffusers|huggingface_hub|peft)\b")
