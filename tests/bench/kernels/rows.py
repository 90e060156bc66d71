"""Random rows with the traits that codecs must cope with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.calibrate import calibrate
from hyperlane.transport.codec import Codec, make_codec
from hyperlane.transport.codec.tabled import TABLED_NAMES, TabledCodec


def plain_rows(seed: int, rows: int, width: int, spread: float = 0.5) -> NDArray[np.float32]:
    """Gaussian channels of different strength and mean."""
    rng = np.random.default_rng(seed)
    strength, mean = np.exp(rng.standard_normal(width) * spread), rng.standard_normal(width) / 4
    return (rng.standard_normal((rows, width)) * strength + mean).astype(np.float32)


def spoil(hidden_RD: NDArray[Any], seed: int) -> None:
    """Some rows become outliers, zeros, NaN, Inf, tiny, huge, or have one loud channel."""
    rng = np.random.default_rng(seed)
    for row, kind in zip(rng.permutation(len(hidden_RD))[: len(hidden_RD) // 2], range(10**6), strict=False):
        match kind % 12:
            case 0:
                hidden_RD[row, rng.integers(hidden_RD.shape[1])] = np.nan
            case 1:
                hidden_RD[row] = 0
            case 2:
                hidden_RD[row] *= 200
            case 3:
                hidden_RD[row, rng.integers(hidden_RD.shape[1])] = np.inf
            case 4:
                hidden_RD[row] *= 1e-6
            case 5:
                hidden_RD[row, rng.integers(hidden_RD.shape[1])] *= 50
            case 6:
                hidden_RD[row] *= 4
            case 7:
                hidden_RD[row] = hidden_RD[row, ::-1]
            case 8:
                hidden_RD[row, :] = 0.01
                hidden_RD[row, rng.integers(hidden_RD.shape[1])] = 3


def codec_for(name: str, hidden_RD: NDArray[Any], *, native: bool = True) -> Codec:
    """With tables of these rows, where it takes tables."""
    return TabledCodec(name, calibrate(hidden_RD), native=native) if name in TABLED_NAMES else make_codec(name)
