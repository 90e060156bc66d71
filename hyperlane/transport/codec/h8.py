"""H8: eight bits a rotated value, signed steps of a 127th of one E4M3 scale a block."""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import blockwise, e4m3, scale
from hyperlane.transport.codec.rotation import Span

ID = 5
BITS = 8

row_bytes = blockwise.row_bytes


def quantize(values_RD: NDArray[np.float32], spans: tuple[Span, ...]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The bytes of rotated rows, and which of them the scales can hold."""
    return blockwise.quantize(values_RD, spans, _quantize)


def dequantize(
    records: NDArray[np.uint8], spans: tuple[Span, ...], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Whole numbers [R, width], and what one of each stands for."""
    return blockwise.dequantize(records, spans, width, _dequantize)


def _quantize(
    values_Rn: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """The scale of a block is the least E4M3 value that clips nothing: levels are plenty, a clipped value is dear."""
    sixteenfold_R = np.abs(values_Rn).max(axis=1) * np.float32(16)
    scales_R = e4m3.at_least(np.minimum(sixteenfold_R, scale.LARGEST))
    steps_Rn = np.rint(values_Rn * (scale.inverse(scale.step(scales_R)) * np.float32(127))[:, None])
    codes_Rn = np.clip(steps_Rn, -127, 127).astype(np.int8).view(np.uint8)
    return scales_R, codes_Rn, sixteenfold_R <= scale.LARGEST


def _dequantize(
    scales_R: NDArray[np.uint8], codes_Rn: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return codes_Rn.view(np.int8).astype(np.float32), scale.step(scales_R) * np.float32(1 / 127)
