"""Tuning methods: one file each, one contract (``contract.py``), one table."""

from __future__ import annotations

from inlay.methods.adapter import Adapter
from inlay.methods.bitfit import BitFit
from inlay.methods.contract import Attachment, Method
from inlay.methods.difffit import DiffFit
from inlay.methods.full import Full
from inlay.methods.gated import Gated
from inlay.methods.hypernetwork import Hypernetwork
from inlay.methods.lora import Lora
from inlay.methods.prefix import Prefix
from inlay.methods.textual_inversion import TextualInversion
from inlay.methods.tlora import TLora

METHODS: dict[str, type[Method]] = {
    "adapter": Adapter,
    "bitfit": BitFit,
    "difffit": DiffFit,
    "full": Full,
    "gated": Gated,
    "hypernetwork": Hypernetwork,
    "lora": Lora,
    "prefix": Prefix,
    "textual_inversion": TextualInversion,
    "tlora": TLora,
}
"""Every method by the name it has in a run file. Command line, run files, plans and contract tests read this table."""

__all__ = [
    "METHODS",
    "Adapter",
    "Attachment",
    "BitFit",
    "DiffFit",
    "Full",
    "Gated",
    "Hypernetwork",
    "Lora",
    "Method",
    "Prefix",
    "TLora",
    "TextualInversion",
]
