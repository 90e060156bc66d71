"""Weights as INT4 in blocks: half of INT8 again, and visibly less exact on small models."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.quantization import Array, Operator, Role
from hyperlane.quantization.blocks import block_layout, block_operator, pack_blocks
from hyperlane.quantization.none import NoQuantization

_BITS = 4


@dataclass(kw_only=True, slots=True)
class Int4:
    """Blocks of `block_size` values along K; `embedding`: the vocabulary's rows too.

    accuracy_level 4 lets ONNX Runtime round the activations to INT8 as it multiplies; 1 keeps them FP32.
    """

    block_size: int = 32
    accuracy_level: int = 4
    embedding: bool = True

    @property
    def name(self) -> str:
        kept = "" if self.embedding else "-fullembedding"
        return f"int{_BITS}-b{self.block_size}-a{self.accuracy_level}{kept}"

    def layout(self, role: Role, shape_NK: tuple[int, int], dtype: np.dtype[Any]) -> tuple[Array, ...]:
        if not self._applies(role, shape_NK):
            return NoQuantization().layout(role, shape_NK, dtype)
        return block_layout(role, shape_NK, dtype, _BITS, self.block_size)

    def pack(self, role: Role, weight_NK: NDArray[np.floating[Any]]) -> tuple[NDArray[Any], ...]:
        if not self._applies(role, weight_NK.shape):
            return NoQuantization().pack(role, weight_NK)
        return pack_blocks(role, weight_NK, _BITS, self.block_size)

    def operator(self, role: Role, shape_NK: tuple[int, int]) -> Operator:
        if not self._applies(role, shape_NK):
            return NoQuantization().operator(role, shape_NK)
        return block_operator(role, shape_NK, _BITS, self.block_size, self.accuracy_level)

    def _applies(self, role: Role, shape_NK: tuple[int, ...]) -> bool:
        """GatherBlockQuantized takes whole blocks only."""
        return role == "matmul" or (self.embedding and shape_NK[1] % self.block_size == 0)
