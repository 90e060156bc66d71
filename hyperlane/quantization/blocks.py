"""Blocks of integers with a scale and a zero point each, as ONNX Runtime's MatMulNBits stores them."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.quantization import Array, Operator, Role


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
