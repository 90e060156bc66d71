"""SB4, sorted blocks: channels sorted by deviation, and as many bits a block as its energy earns.

A row's record is one scale byte, then the blocks' codes in the trellis code of a unit Gaussian: the tables
bring each block to unit variance, so that one scale a row is enough. This is `int4`.
"""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import e4m3, scale, trellis
from hyperlane.transport.codec.planes import pack, packed_bytes, unpack
from hyperlane.transport.codec.rotation import Span, row_sum
from hyperlane.transport.codec.tables import Tables

ID = 3
SORTED = True
SIXTEENFOLD = np.float32(15.375)  # 16 times 0.96
LOUDEST = np.float32(10)  # a value by the RMS; a row that has a louder one is sent as it is


def bits(tables: Tables) -> NDArray[np.uint8]:
    """Bits a value of each block of sorted channels."""
    return tables.bits_B


def row_bytes(spans: tuple[Span, ...]) -> int:
    return 1 + sum(packed_bytes(stop - start, bits) for start, stop, bits in spans)


def quantize(values_RD: NDArray[np.float32], spans: tuple[Span, ...]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The bytes of rotated rows, and which of them one scale can hold.

    The scale is 0.96 of the RMS of all values that have bits: their tails are lighter than a Gaussian's.
    """
    coded_RD = np.zeros_like(values_RD)
    for start, stop, _ in spans:
        coded_RD[:, start:stop] = values_RD[:, start:stop]
    count = max(sum(stop - start for start, stop, _ in spans), 1)
    rms_R = np.sqrt(row_sum(coded_RD * coded_RD) * (np.float32(1) / np.float32(count)))
    sixteenfold_R = rms_R * SIXTEENFOLD
    fits_R = (sixteenfold_R <= scale.LARGEST) & (np.abs(coded_RD).max(axis=1) <= LOUDEST * rms_R)
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
