"""Tuning methods: one file each, one contract (``contract.py``), one table."""

from __future__ import annotations

from inlay.methods.adapter import Adapter
from inlay.methods.bitfit import BitFit
from inlay.methods.boft import BOFT
from inlay.methods.c3a import C3A
from inlay.methods.contract import Attachment, Method, merge_all
from inlay.methods.delora import DeLoRA
from inlay.methods.difffit import DiffFit
from inlay.methods.fourierft import FourierFT
from inlay.methods.full import Full
from inlay.methods.gated import Gated
from inlay.methods.gralora import GraLoRA
from inlay.methods.hira import HiRA
from inlay.methods.hra import HRA
from inlay.methods.hypernetwork import Hypernetwork
from inlay.methods.ia3 import IA3
from inlay.methods.loha import LoHa
from inlay.methods.lokr import LoKr
from inlay.methods.lora import Lora
from inlay.methods.miss import MiSS
from inlay.methods.oft import OFT
from inlay.methods.prefix import Prefix
from inlay.methods.pvera import PVeRA
from inlay.methods.randlora import RandLoRA
from inlay.methods.road import RoAd
from inlay.methods.textual_inversion import TextualInversion
from inlay.methods.tlora import TLora
from inlay.methods.vblora import VBLoRA
from inlay.methods.vera import VeRA
from inlay.methods.waveft import WaveFT

METHODS: dict[str, type[Method]] = {
    "adapter": Adapter,
    "bitfit": BitFit,
    "boft": BOFT,
    "c3a": C3A,
    "delora": DeLoRA,
    "difffit": DiffFit,
    "fourierft": FourierFT,
    "full": Full,
    "gated": Gated,
    "gralora": GraLoRA,
    "hira": HiRA,
    "hra": HRA,
    "hypernetwork": Hypernetwork,
    "ia3": IA3,
    "loha": LoHa,
    "lokr": LoKr,
    "lora": Lora,
    "miss": MiSS,
    "oft": OFT,
    "prefix": Prefix,
    "pvera": PVeRA,
    "randlora": RandLoRA,
    "road": RoAd,
    "textual_inversion": TextualInversion,
    "tlora": TLora,
    "vblora": VBLoRA,
    "vera": VeRA,
    "waveft": WaveFT,
}
"""Every method by the name it has in a run file. Command line, run files, plans and contract tests read this table."""

__all__ = [
    "BOFT",
    "C3A",
    "HRA",
    "IA3",
    "METHODS",
    "OFT",
    "Adapter",
    "Attachment",
    "BitFit",
    "DeLoRA",
    "DiffFit",
    "FourierFT",
    "Full",
    "Gated",
    "GraLoRA",
    "HiRA",
    "Hypernetwork",
    "LoHa",
    "LoKr",
    "Lora",
    "Method",
    "MiSS",
    "PVeRA",
    "Prefix",
    "RandLoRA",
    "RoAd",
    "TLora",
    "TextualInversion",
    "VBLoRA",
    "VeRA",
    "WaveFT",
    "merge_all",
]
