"""The constants that codes index: NF4, and the levels of the trellis code for 1 to 6 bits.

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


def _mirrored(upper: list[float]) -> NDArray[np.float32]:
    return np.array([-level for level in reversed(upper)] + upper, np.float32)


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

# The levels of the 4-state trellis code for a unit Gaussian, by bits: 2^(bits + 1) of them, fitted to the codes that
# the search gives 700,000 values, until they stayed.
TRELLIS: tuple[NDArray[np.float32], ...] = (
    np.zeros(1, np.float32),
    _mirrored([0.3887166, 1.1875286]),
    _mirrored([0.1772863, 0.6325135, 1.067012, 1.8694303]),
    _mirrored([0.0993696, 0.3309554, 0.5419099, 0.7945497, 1.0530496, 1.368445, 1.8042049, 2.5043094]),
    _mirrored(
        [
            *(0.0595388, 0.1911758, 0.3094412, 0.4438285, 0.5674028, 0.7056584, 0.8389885, 0.9880496),
            *(1.1360795, 1.299997, 1.4736687, 1.6745667, 1.912259, 2.2111213, 2.5977967, 3.1937857),
        ]
    ),
    _mirrored(
        [
            *(0.0321158, 0.1018899, 0.1652009, 0.2354172, 0.2988649, 0.3704993, 0.4355075, 0.5073611),
            *(0.5739827, 0.6475615, 0.7147506, 0.7902012, 0.8616868, 0.9410267, 1.0147853, 1.0979947),
            *(1.1777234, 1.2647713, 1.350126, 1.4437163, 1.5411005, 1.6446381, 1.7541101, 1.8751733),
            *(2.0099702, 2.1581047, 2.32411, 2.5079784, 2.7179258, 2.9719121, 3.2910981, 3.7757983),
        ]
    ),
    _mirrored(
        [
            *(0.0156398, 0.0515914, 0.0830436, 0.1192229, 0.1510196, 0.1862272, 0.2201083, 0.2544717),
            *(0.2881151, 0.3244928, 0.3574166, 0.3931564, 0.426163, 0.4622695, 0.4958842, 0.5323062),
            *(0.5664098, 0.6033552, 0.637692, 0.6760184, 0.7100826, 0.7482456, 0.7833857, 0.822275),
            *(0.8590645, 0.8991218, 0.9365168, 0.9770106, 1.015402, 1.0568395, 1.0969145, 1.1390772),
            *(1.1791317, 1.2223629, 1.2655561, 1.3097492, 1.3547682, 1.4012705, 1.4479227, 1.4961634),
            *(1.5461648, 1.5977669, 1.6496433, 1.7050234, 1.7626921, 1.8227324, 1.8833874, 1.9482936),
            *(2.0161676, 2.0847533, 2.1552234, 2.2317646, 2.3141906, 2.4036489, 2.4981191, 2.6002121),
            *(2.7101324, 2.8309672, 2.9700718, 3.1273131, 3.310091, 3.5544167, 3.8701129, 4.3868232),
        ]
    ),
)
# Midway between neighbours of one subset: level i belongs to subset i % 4. By bits, in rising order.
THRESHOLDS: tuple[NDArray[np.float32], ...] = tuple((levels[:-4] + levels[4:]) * np.float32(0.5) for levels in TRELLIS)
