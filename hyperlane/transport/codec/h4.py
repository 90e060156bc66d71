"""H4: four bits a rotated value, one of 16 levels of a block's scale, a signed E4M3 byte.

The scale is the block's value of largest magnitude, with its sign, so that the largest value always lies at the
upper end and the levels can be denser below it. They are multiples of a 128th, of least squared error for normally
distributed values (docs/decisions/0018-h4-has-levels-of-its-own.md). There is nothing to search: a value is rounded to
128ths, and takes the level nearest to that.
"""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import blockwise, e4m3, scale
from hyperlane.transport.codec.rotation import Span

ID = 4
BITS = 4

LEVELS = np.array([-110, -87, -68, -53, -40, -27, -14, -3, 8, 19, 32, 45, 60, 77, 98, 125], np.float32)
MIDPOINTS = (LEVELS[:-1] + LEVELS[1:]) * np.float32(0.5)
NEGATIVE = 128  # in a scale byte

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
    """A tie between two levels goes to the lower one; where both ends are as far from 0, the scale is positive."""
    high_R, low_R = values_Rn.max(axis=1), -values_Rn.min(axis=1)
    sixteenfold_R = np.maximum(high_R, low_R) * np.float32(16)
    scales_R = e4m3.nearest(sixteenfold_R)
    parts_R = _signed(scale.inverse(scale.step(scales_R)) * np.float32(128), low_R > high_R)
    parts_Rn = np.clip(np.rint(values_Rn * parts_R[:, None]), -128, 127)
    codes_Rn = np.searchsorted(MIDPOINTS, parts_Rn, side="left").astype(np.uint8)
    scales_R[low_R > high_R] |= NEGATIVE
    return scales_R, codes_Rn, sixteenfold_R <= scale.LARGEST


def _dequantize(
    scales_R: NDArray[np.uint8], codes_Rn: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return LEVELS[codes_Rn], _signed(scale.step(scales_R) * np.float32(1 / 128), scales_R >= NEGATIVE)


def _signed(factors_R: NDArray[np.float32], negative_R: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(negative_R, -factors_R, factors_R)
