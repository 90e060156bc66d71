"""How many bits each block of `int4` gets: one at a time, to where it removes most error of a text's own rows.

Measured, not computed from deviations: the first block holds the few strong channels, its values are no Gaussian
from row to row, and an allotment that takes them for one leaves 6 % more error.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec.rotation import blocks
from hyperlane.transport.codec.tabled import TabledCodec
from hyperlane.transport.codec.tables import MAX_BITS, Tables

SB4_BITS = 3.94  # a value, RMS and scale counted
ROW_BITS = 24  # RMS and scale
_LEAST_BITS = 3.5
MOST_ROWS = 512  # that are measured


def allot_bits(tables: Tables, rows_RD: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bits [B] of the blocks of `tables`, whose own bits do not count, for rows like `rows_RD`."""
    sizes = [stop - start for start, stop in blocks(tables.width)]
    left = max(SB4_BITS * tables.width - ROW_BITS, _LEAST_BITS * tables.width)
    return cheapest(_errors(tables, rows_RD), sizes, left)


def cheapest(errors: NDArray[np.float64], sizes: list[int], left: float) -> NDArray[np.uint8]:
    """Bits [B] of at most `left` in all: each next one to the block of `sizes` that gains most a bit.

    errors[block, bits]: what the block leaves with so many.
    """
    bits = [0] * len(sizes)
    while True:
        worth = {
            block: (errors[block, bits[block]] - errors[block, bits[block] + 1]) / size
            for block, size in enumerate(sizes)
            if bits[block] < MAX_BITS and size <= left
        }
        if not worth:
            return np.array(bits, np.uint8)
        winner = max(worth, key=worth.__getitem__)
        bits[winner] += 1
        left -= sizes[winner]


def _errors(tables: Tables, rows_RD: NDArray[np.float32]) -> NDArray[np.float64]:
    """[blocks, MAX_BITS + 1]: the mean squared error of a block's channels by the row's energy."""
    spans = blocks(tables.width)
    rows = np.ascontiguousarray(rows_RD[:: -(-len(rows_RD) // MOST_ROWS)])
    energy_R = (rows.astype(np.float64) ** 2).sum(axis=1)
    errors = np.zeros((len(spans), MAX_BITS + 1))
    for bits in range(MAX_BITS + 1):
        coder = TabledCodec("int4", replace(tables, bits_B=np.full(len(spans), bits, np.uint8)))
        wrong = _coded(coder, rows).astype(np.float64) - rows
        error_D = (wrong * wrong / energy_R[:, None]).mean(axis=0)[tables.order_D]
        errors[:, bits] = [error_D[start:stop].sum() for start, stop in spans]
    return errors


def _coded(coder: TabledCodec, rows_RD: NDArray[np.float32]) -> NDArray[Any]:
    positions_R, out_RD = np.ones(len(rows_RD), np.uint32), np.empty_like(rows_RD)
    coder.decode(coder.encode(rows_RD, positions_R), positions_R, out_RD)
    return out_RD
