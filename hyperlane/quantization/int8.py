"""Weights as INT8 in blocks: a bit over a quarter of FP32's size, nearly as good as FP32."""

from dataclasses import dataclass
from typing import ClassVar

from hyperlane.quantization.blocks import Blocks


@dataclass(kw_only=True, slots=True)
class Int8(Blocks):
    bits: ClassVar[int] = 8
