"""Rows quantized block by block (h4, h8): a scale byte for each block, then the blocks' codes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec.planes import pack, packed_bytes, unpack
from hyperlane.transport.codec.rotation import Span

# Values [R, n] of a block -> scale bytes [R], codes [R, n], and whether the scales can hold them [R].
QuantizeBlock = Callable[[NDArray[np.float32]], tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]]
# Scale bytes [R], codes [R, n] -> whole numbers [R, n], and what one of them stands for [R].
DequantizeBlock = Callable[[NDArray[np.uint8], NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


def row_bytes(spans: tuple[Span, ...]) -> int:
    return sum(1 + packed_bytes(stop - start, bits) for start, stop, bits in spans)


def quantize(
    values_RD: NDArray[np.float32], spans: tuple[Span, ...], block: QuantizeBlock
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The bytes [R, row_bytes] of rotated rows, and which of them the scales can hold."""
    fits_R = np.ones(len(values_RD), np.bool_)
    scales, codes = [], []
    for start, stop, bits in spans:
        scales_R, codes_Rn, block_fits_R = block(values_RD[:, start:stop])
        scales.append(scales_R[:, None])
        codes.append(pack(codes_Rn, bits))
        fits_R &= block_fits_R
    return np.concatenate([*scales, *codes], axis=1), fits_R


def dequantize(
    records: NDArray[np.uint8], spans: tuple[Span, ...], width: int, block: DequantizeBlock
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Whole numbers [R, width], and what one of each stands for, that `records` hold."""
    numbers_RD, step_RD = np.zeros((2, len(records), width), np.float32)
    at = len(spans)
    for index, (start, stop, bits) in enumerate(spans):
        size = packed_bytes(stop - start, bits)
        codes_Rn = unpack(records[:, at : at + size], stop - start, bits)
        numbers_RD[:, start:stop], step_R = block(records[:, index], codes_Rn)
        step_RD[:, start:stop] = step_R[:, None]
        at += size
    return numbers_RD, step_RD
