"""The trellis code of int4: the search finds the best of all codes, and leaves as little as it promises."""

from itertools import product

import numpy as np
import pytest

from hyperlane.transport.codec import trellis
from hyperlane.transport.codec.codebooks import THRESHOLDS, TRELLIS

# The mean squared error that the code leaves of a unit Gaussian, by bits.
DISTORTION = (1.0, 0.3183, 0.08879, 0.02421, 0.006624, 0.001775, 0.0004541)


@pytest.mark.parametrize("bits", range(1, 7))
def test_levels_rise_and_mirror(bits: int) -> None:
    assert len(TRELLIS[bits]) == 2 ** (bits + 1)
    assert (np.diff(TRELLIS[bits]) > 0).all()
    assert (np.diff(THRESHOLDS[bits]) > 0).all()
    np.testing.assert_array_equal(TRELLIS[bits], -TRELLIS[bits][::-1])


def test_the_search_finds_the_best_of_all_codes() -> None:
    spans = ((0, 16, 1), (16, 32, 2), (32, 48, 1), (48, 49, 2))  # of lane 0: four values
    values = np.random.default_rng(0).standard_normal((20, 49), np.float32)
    found = trellis.levels(trellis.search(values, spans), spans)
    lane = [0, 16, 32, 48]
    every = np.array(list(product(range(2), range(4), range(2), range(4))), np.uint8)
    codes = np.zeros((len(every), 49), np.uint8)
    codes[:, lane] = every
    reachable = trellis.levels(codes, spans)[:, lane]
    best = ((values[:, None, lane] - reachable) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(((values - found)[:, lane] ** 2).sum(axis=1), best, rtol=1e-5)


@pytest.mark.parametrize("bits", range(1, 7))
def test_what_is_left_of_a_gaussian(bits: int) -> None:
    values = np.random.default_rng(1).standard_normal((16, 2048), np.float32)
    spans = ((0, 2048, bits),)
    left = float(((values - trellis.levels(trellis.search(values, spans), spans)) ** 2).mean())
    assert left == pytest.approx(DISTORTION[bits], rel=0.08)


def test_no_bits_no_values() -> None:
    codes = trellis.search(np.ones((3, 64), np.float32), ())
    np.testing.assert_array_equal(trellis.levels(codes, ()), np.zeros((3, 64), np.float32))
