"""Weights as INT8, symmetric in blocks of 32: a bit over a quarter of FP32's size, nearly as good as FP32."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlane.quantization import Form, Parameter, Role
from hyperlane.quantization.reference import BLOCK, Blocks

FORM = Form(bits=8, minima=False)


@dataclass(kw_only=True, slots=True)
class Int8:
    """`embedding`: the vocabulary's rows too."""

    embedding: bool = True

    @property
    def name(self) -> str:
        return "int8" if self.embedding else "int8-fullembedding"

    def form(self, role: Role, source: Form | None) -> Form | None:
        return FORM if role == "matmul" or self.embedding else None

    def pack(self, form: Form, parameter: Parameter) -> Blocks:
        return round_to_int8(parameter.values())


def round_to_int8(weight_NK: NDArray[np.float32]) -> Blocks:
    """Round to nearest; a block's largest magnitude becomes 127, or a bit less where FP16 rounds the scale up."""
    N, K = weight_NK.shape
    blocks = np.zeros((N, -(-K // BLOCK) * BLOCK), np.float32)
    blocks[:, :K] = weight_NK
    blocks = blocks.reshape(N, -1, BLOCK)
    scales = (np.abs(blocks).max(2) / 127).astype(np.float16)
    inverse = np.divide(1, scales, out=np.zeros(scales.shape, np.float32), where=scales > 0)
    codes = np.clip(np.rint(blocks * inverse[:, :, None]), -128, 127) + 128
    return Blocks(bits=8, codes_NK=codes.astype(np.uint8).reshape(N, -1)[:, :K], scales_NB=scales)
