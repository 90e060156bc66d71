"""E4M3, the 8-bit float of the block scales: 4 exponent bits of bias 7, 3 mantissa bits (OCP OFP8, no sign).

Code 8 e + m stands for (1 + m/8) * 2^(e - 7), codes below 8 for m * 2^-9. Scales are never negative and stop
at 448 (code 126); a decoder reads any byte, by its low seven bits.
"""

import numpy as np
from numpy.typing import NDArray

LARGEST = np.float32(448)
_STEP_BELOW_NORMAL = np.float32(2**-9)


def nearest(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The codes nearest to `values` (0 to 448; above saturates), ties to the even code."""
    values = np.minimum(values, LARGEST)
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFFF) + ((bits >> np.uint32(20)) & np.uint32(1))
    normal = (rounded >> np.uint32(20)) - np.uint32(120 << 3)  # 127 - 7: FP32's bias less this one's
    subnormal = np.rint(values / _STEP_BELOW_NORMAL).astype(np.uint32)
    return np.where(values < np.float32(2**-6), subnormal, normal).astype(np.uint8)


def at_least(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The smallest codes that are not below `values` (0 to 448; above saturates)."""
    codes = nearest(values)
    too_small = (VALUES[codes] < values) & (codes < 126)
    return codes + too_small.astype(np.uint8)


def _value(code: int) -> float:
    exponent, mantissa = (code & 127) >> 3, code & 7
    return float((8 + mantissa) * 2.0 ** (exponent - 10) if exponent else mantissa * 2.0**-9)


VALUES: NDArray[np.float32] = np.array([_value(code) for code in range(256)], np.float32)
