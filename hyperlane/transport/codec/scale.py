"""The scale of a block: one E4M3 byte that stands for a sixteenth of its value, chosen by squared error."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import e4m3
from hyperlane.transport.codec.codebooks import Codebook
from hyperlane.transport.codec.rotation import halving_sum

LARGEST = e4m3.LARGEST  # what 16 times a block's gain may reach; above it the row is sent raw


def step(scales_R: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The factors [R] that scale bytes stand for."""
    return e4m3.VALUES[scales_R] * np.float32(1 / 16)


def inverse(factors_R: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / factor, and 0 for 0."""
    with np.errstate(divide="ignore"):
        return np.where(factors_R > 0, np.float32(1) / factors_R, np.float32(0))


def best(
    values_Rn: NDArray[np.float32], gain_R: NDArray[np.float32], trials: Sequence[float], book: Codebook
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scale bytes [R] and codes [R, n]: of the e4m3(16 * trial * gain), that of least squared error.

    `trials` are the factors 16 * trial in FP32; the first of equals wins.
    """
    least_R = np.full(len(values_Rn), np.inf, np.float32)
    scales_R = np.zeros(len(values_Rn), np.uint8)
    codes_Rn = np.zeros(values_Rn.shape, np.uint8)
    for trial in trials:
        scales = e4m3.nearest(gain_R * np.float32(trial))
        codes = book.codes(values_Rn * inverse(step(scales))[:, None])
        wrong = values_Rn - book.levels[codes] * step(scales)[:, None]
        error_R = halving_sum(wrong * wrong)
        better_R = error_R < least_R
        least_R[better_R] = error_R[better_R]
        scales_R[better_R] = scales[better_R]
        codes_Rn[better_R] = codes[better_R]
    return scales_R, codes_Rn
