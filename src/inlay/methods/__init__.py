"""Tuning methods: one file each, one contract (``contract.py``), one table."""

from __future__ import annotations

from inlay.methods.contract import Attachment, Method
from inlay.methods.full import Full
from inlay.methods.lora import Lora

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "lora": Lora,
}
"""Every method by the name it has in a run file. Command line, run files, plans and contract tests read this table."""

__all__ = ["METHODS", "Attachment", "Full", "Lora", "Method"]
