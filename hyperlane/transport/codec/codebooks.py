"""The constants that codes index: NF4.

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

    @classmethod
    def of(cls, levels: NDArray[np.float32]) -> "Codebook":
        return cls(levels, (levels[:-1] + levels[1:]) * np.float32(0.5))

    def codes(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The index of the nearest level."""
        return np.searchsorted(self.midpoints, values, side="left").astype(np.uint8)


# QLoRA, arXiv 2305.14314: 4-bit NormalFloat.
NF4 = Codebook.of(
    np.array(
        [
            *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
            *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
            *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
            *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
        ],
        np.float32,
    )
)
