"""Bits go where they remove most: by what the code leaves of the rows, not by what a Gaussian would leave."""

from dataclasses import replace

import numpy as np

from hyperlane.transport.allot import SB4_BITS, allot_bits, cheapest
from hyperlane.transport.calibrate import calibrate, relative_error
from hyperlane.transport.codec.tabled import TabledCodec

FALLING = np.array([[16.0, 4, 1, 0.25, 0.06, 0.015, 0.004], [1.0, 0.25, 0.06, 0.015, 0.004, 0.001, 0.0002]])


def bursting(rows: int, seed: int) -> np.ndarray:
    """The first channels are loud in one row of eight and silent in the others: no Gaussian."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, 256)).astype(np.float32)
    values[:, :4] *= 8 * (np.arange(rows) % 8 == 0)[:, None]
    return values


def error_with(bits: list[int], rows: np.ndarray) -> float:
    coder = TabledCodec("int4", replace(calibrate(bursting(512, 1)), bits_B=np.array(bits, np.uint8)))
    positions, out = np.ones(len(rows), np.uint32), np.empty_like(rows)
    coder.decode(coder.encode(rows, positions), positions, out)
    return relative_error(rows, out)


def test_each_bit_goes_to_the_greatest_gain() -> None:
    assert cheapest(FALLING, [64, 64], 6 * 64).tolist() == [4, 2]
    assert cheapest(FALLING, [64, 64], 64 * 20).tolist() == [6, 6], "no block has more than six"


def test_a_small_block_pays_for_its_own_values_only() -> None:
    assert cheapest(FALLING, [64, 4], 68).tolist() == [1, 1]
    assert cheapest(FALLING, [64, 4], 63).tolist() == [0, 6]


def test_the_bits_spent_keep_to_the_budget() -> None:
    tables = calibrate(bursting(512, 1))
    assert SB4_BITS * 256 - 24 - 64 < 64 * tables.bits_B.sum() <= SB4_BITS * 256 - 24


def test_no_other_allotment_nearby_is_better_on_other_rows() -> None:
    chosen, rows = calibrate(bursting(512, 1)).bits_B.tolist(), bursting(512, 2)
    least = error_with(chosen, rows)
    for giver in range(4):
        for taker in range(4):
            other = list(chosen)
            other[giver], other[taker] = other[giver] - 1, other[taker] + 1
            if giver != taker and max(other) <= 6:
                assert error_with(other, rows) > 0.99 * least, other


def test_the_tables_own_bits_do_not_count() -> None:
    tables, rows = calibrate(bursting(512, 1)), bursting(512, 1)
    assert allot_bits(replace(tables, bits_B=np.zeros(4, np.uint8)), rows).tolist() == tables.bits_B.tolist()
