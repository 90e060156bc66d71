"""H4: four bits a rotated value, an index into NF4 (arXiv 2305.14314) under one E4M3 scale a block."""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import blockwise, scale
from hyperlane.transport.codec.codebooks import NF4
from hyperlane.transport.codec.rotation import Span

ID = 4
BITS = 4

CLIPS = (0.75, 0.85, 0.95, 1.0)
TRIALS = tuple(16 * clip for clip in CLIPS)

row_bytes = blockwise.row_bytes


def quantize(values_RD: NDArray[np.float32], spans: tuple[Span, ...]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The bytes of rotated rows, and which of them the scales can hold."""
    return blockwise.quantize(values_RD, spans, _quantize)


def dequantize(records: NDArray[np.uint8], spans: tuple[Span, ...], width: int) -> NDArray[np.float32]:
    """The rotated rows [R, width]."""
    return blockwise.dequantize(records, spans, width, _dequantize)


def _quantize(
    values_Rn: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """The scale of a block is e4m3(16 * clip * absmax) / 16 with the clip of least squared error."""
    absmax_R = np.abs(values_Rn).max(axis=1)
    fits_R = absmax_R * np.float32(16) <= scale.LARGEST
    return (*scale.best(values_Rn, absmax_R, TRIALS, NF4), fits_R)


def _dequantize(scales_R: NDArray[np.uint8], codes_Rn: NDArray[np.uint8]) -> NDArray[np.float32]:
    return NF4.levels[codes_Rn] * scale.step(scales_R)[:, None]
