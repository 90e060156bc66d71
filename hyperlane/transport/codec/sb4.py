"""SB4, sorted blocks: channels sorted by deviation, and as many bits a block as its energy earns.

A row's record is one scale byte, then the blocks' codes in the trellis code of a unit Gaussian: the tables
bring each block to unit variance, so that one scale a row is enough. This is `int4`.
"""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import e4m3, scale, trellis
from hyperlane.transport.codec.planes import pack, packed_bytes, unpack
from hyperlane.transport.codec.rotation import Span, halving_sum
from hyperlane.transport.codec.tables import Tables

ID = 3
SORTED = True
LOUDEST = np.float32(9)  # the mean square of a block by the row's; above it the row is sent as it is


def bits(tables: Tables) -> NDArray[np.uint8]:
    """Bits a value of each block of sorted channels."""
    return tables.bits_B


def row_bytes(spans: tuple[Span, ...]) -> int:
    return 1 + sum(packed_bytes(stop - start, bits) for start, stop, bits in spans)


def quantize(values_RD: NDArray[np.float32], spans: tuple[Span, ...]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The bytes of rotated rows, and which of them one scale can hold.

    The scale is the root of the mean, over blocks that have bits, of the block's mean square.
    """
    squares = [_mean_square(values_RD[:, start:stop]) for start, stop, _ in spans]
    total_R = np.zeros(len(values_RD), np.float32)
    for squares_R in squares:
        total_R = total_R + squares_R
    mean_R = total_R * np.float32(1 / max(len(spans), 1))
    sixteenfold_R = np.sqrt(mean_R) * np.float32(16)
    fits_R = sixteenfold_R <= scale.LARGEST
    for squares_R in squares:
        fits_R &= squares_R <= LOUDEST * mean_R
    scales_R = e4m3.nearest(sixteenfold_R)
    codes_RD = trellis.search(values_RD * scale.inverse(scale.step(scales_R))[:, None], spans)
    codes = [pack(codes_RD[:, start:stop], bits) for start, stop, bits in spans]
    return np.concatenate([scales_R[:, None], *codes], axis=1), fits_R


def dequantize(records: NDArray[np.uint8], spans: tuple[Span, ...], width: int) -> NDArray[np.float32]:
    """The rotated rows [R, width]."""
    codes_RD = np.zeros((len(records), width), np.uint8)
    at = 1
    for start, stop, bits in spans:
        size = packed_bytes(stop - start, bits)
        codes_RD[:, start:stop] = unpack(records[:, at : at + size], stop - start, bits)
        at += size
    return trellis.levels(codes_RD, spans) * scale.step(records[:, 0])[:, None]


def _mean_square(values_Rn: NDArray[np.float32]) -> NDArray[np.float32]:
    return halving_sum(values_Rn * values_Rn) * np.float32(1 / values_Rn.shape[1])
