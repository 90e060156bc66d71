"""Blocks of integers with a scale and a zero point each, as ONNX Runtime's MatMulNBits stores them."""

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hyperlane.quantization import Array, Operator, Role
from hyperlane.quantization.none import NoQuantization


@dataclass(kw_only=True, slots=True)
class Blocks:
    """Blocks of `block_size` values along K, of `bits` each; `embedding`: the vocabulary's rows too.

    accuracy_level 4 lets ONNX Runtime round the activations to INT8 as it multiplies; 1 keeps them FP32.
    """

    bits: ClassVar[int]
    block_size: int = 32
    accuracy_level: int = 4
    embedding: bool = True

    @property
    def name(self) -> str:
        kept = "" if self.embedding else "-fullembedding"
        return f"int{self.bits}-b{self.block_size}-a{self.accuracy_level}{kept}"

    def layout(self, role: Role, shape_NK: tuple[int, int], dtype: np.dtype[Any]) -> tuple[Array, ...]:
        if not self._applies(role, shape_NK):
            return NoQuantization().layout(role, shape_NK, dtype)
        return block_layout(role, shape_NK, dtype, self.bits, self.block_size)

    def pack(self, role: Role, weight_NK: NDArray[np.floating[Any]]) -> tuple[NDArray[Any], ...]:
        if not self._applies(role, weight_NK.shape):
            return NoQuantization().pack(role, weight_NK)
        return pack_blocks(role, weight_NK, self.bits, self.block_size)

    def operator(self, role: Role, shape_NK: tuple[int, int]) -> Operator:
        if not self._applies(role, shape_NK):
            return NoQuantization().operator(role, shape_NK)
        return block_operator(role, shape_NK, self.bits, self.block_size, self.accuracy_level)

    def _applies(self, role: Role, shape_NK: tuple[int, ...]) -> bool:
        """GatherBlockQuantized takes whole blocks only."""
        return role == "matmul" or (self.embedding and shape_NK[1] % self.block_size == 0)


def block_layout(
    role: Role, shape_NK: tuple[int, int], dtype: np.dtype[Any], bits: int, block_size: int
) -> tuple[Array, ...]:
    """Packed values, scales and zero points of a weight whose rows are cut into blocks of `block_size`."""
    N, K = shape_NK
    blocks, uint8 = -(-K // block_size), np.dtype(np.uint8)
    packed = (N, blocks, block_size * bits // 8) if role == "matmul" else (N, K * bits // 8)
    return (
        Array(suffix=f".int{bits}", shape=packed, dtype=uint8),
        Array(suffix=".scale", shape=(N, blocks), dtype=dtype),
        Array(suffix=".zero", shape=(N, -(-blocks * bits // 8)), dtype=uint8),
    )


def pack_blocks(
    role: Role, weight_NK: NDArray[np.floating[Any]], bits: int, block_size: int
) -> tuple[NDArray[Any], ...]:
    """Quantize with ONNX Runtime's own kernels, asymmetrically, rounding to nearest."""
    quantizer = _quantizer(bits, block_size)
    packed, scales, zeros = quantizer.qbits_block_quant(np.ascontiguousarray(weight_NK.T))
    layout = block_layout(role, weight_NK.shape, weight_NK.dtype, bits, block_size)
    return tuple(values.reshape(array.shape) for values, array in zip((packed, scales, zeros), layout, strict=True))


def _quantizer(bits: int, block_size: int) -> Any:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    # Imported here, as only an export needs it, and since it sets up the logging of the whole program.
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        DefaultWeightOnlyQuantizer,
    )

    root.setLevel(level)
    root.handlers[:] = handlers
    config = DefaultWeightOnlyQuantConfig(block_size=block_size, is_symmetric=False, bits=bits)
    return DefaultWeightOnlyQuantizer(config)


def block_operator(role: Role, shape_NK: tuple[int, int], bits: int, block_size: int, accuracy_level: int) -> Operator:
    N, K = shape_NK
    attributes = {"bits": bits, "block_size": block_size}
    if role == "gather":
        attributes |= {"gather_axis": 0, "quantize_axis": 1}
        return Operator(name="GatherBlockQuantized", domain="com.microsoft", attributes=attributes)
    attributes |= {"K": K, "N": N, "accuracy_level": accuracy_level}
    return Operator(name="MatMulNBits", domain="com.microsoft", attributes=attributes)
