"""Scales: E4M3 bytes that stand for a sixteenth of their value."""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import e4m3

LARGEST = e4m3.LARGEST  # what 16 times a block's gain may reach; above it the row is sent raw


def step(scales_R: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The factors [R] that scale bytes stand for."""
    return e4m3.VALUES[scales_R] * np.float32(1 / 16)


def inverse(factors_R: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / factor, and 0 for 0."""
    with np.errstate(divide="ignore"):
        return np.where(factors_R > 0, np.float32(1) / factors_R, np.float32(0))
