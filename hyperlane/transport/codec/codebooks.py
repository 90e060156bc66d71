"""The constants that codes index: NF4, and Lloyd-Max quantizers of a unit Gaussian for 1 to 6 bits.

A value takes the nearest entry: its code is how many midpoints between neighbours lie below it, so that a tie
goes to the lower index. Midpoints are FP32 sums of two neighbours, halved.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Codebook:
    """`levels` in rising order, and the `midpoints` between neighbours (one fewer)."""

    levels: NDArray[np.float32]
    midpoints: NDArray[np.float32]

    def codes(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The index of the nearest level."""
        return np.searchsorted(self.midpoints, values, side="left").astype(np.uint8)


def _codebook(levels: list[float]) -> Codebook:
    table = np.array(levels, np.float32)
    return Codebook(table, (table[:-1] + table[1:]) * np.float32(0.5))


def _symmetric(upper: list[float]) -> Codebook:
    return _codebook([-level for level in reversed(upper)] + upper)


# QLoRA, arXiv 2305.14314: 4-bit NormalFloat.
NF4 = _codebook(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)

# Lloyd's fixed point for the density exp(-x^2/2), iterated to 1e-13: the upper halves, by bits.
LLOYD_MAX: tuple[Codebook, ...] = (
    _codebook([0.0]),
    _symmetric([0.79788456]),
    _symmetric([0.45278003, 1.5104176]),
    _symmetric([0.24509418, 0.75600528, 1.3439093, 2.1519457]),
    _symmetric([0.12839503, 0.3880483, 0.65675912, 0.94234046, 1.2562312, 1.6180464, 2.0690172, 2.7325896]),
    _symmetric(
        [
            *(0.06588966, 0.19805183, 0.33137831, 0.46669952, 0.60493362, 0.7471357, 0.89456512, 1.0487833),
            *(1.2118044, 1.3863403, 1.5762281, 1.7872332, 2.0287284, 2.3177394, 2.6911196, 3.2607325),
        ]
    ),
    _symmetric(
        [
            *(0.033409506, 0.10027829, 0.1672969, 0.23456699, 0.30219285, 0.37028265, 0.43894967, 0.50831378),
            *(0.57850303, 0.64965558, 0.72192194, 0.79546766, 0.87047659, 0.94715494, 1.0257363, 1.1064882),
            *(1.1897201, 1.2757945, 1.365141, 1.4582764, 1.5558312, 1.6585889, 1.7675419, 1.8839772),
            *(2.009611, 2.1468102, 2.2989812, 2.4713048, 2.6722738, 2.9174068, 3.2404371, 3.7441013),
        ]
    ),
)

# The mean squared error that each of them leaves of a unit Gaussian, by bits.
DISTORTION = (1.0, 0.36338023, 0.11748185, 0.034547761, 0.0095010080, 0.0025046684, 0.00064423967)
