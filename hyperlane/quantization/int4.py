"""Weights as INT4 in blocks: half of INT8 again, and visibly less exact on small models."""

from dataclasses import dataclass
from typing import ClassVar

from hyperlane.quantization.blocks import Blocks


@dataclass(kw_only=True, slots=True)
class Int4(Blocks):
    bits: ClassVar[int] = 4
