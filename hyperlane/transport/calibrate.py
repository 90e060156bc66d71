"""From hidden states to a boundary's tables, and the measures that admit a codec there."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec.rows import OUTLIER_ROW
from hyperlane.transport.codec.tables import Tables
from hyperlane.transport.steps import scalar_tables

CALIBRATION_TEXT = Path(__file__).with_name("calibration.txt")
SMALLEST_SCALE = np.float16(2**-6)


def calibrate(hidden_RD: NDArray[Any]) -> Tables:
    """Tables from the hidden states of a text; rows above 4 times the median RMS are left out.

    Raises ValueError where not one finite row that is not zero is left.
    """
    rows = hidden_RD.astype(np.float64)
    rows = rows[np.isfinite(rows).all(axis=1) & rows.any(axis=1)]
    if not len(rows):
        raise ValueError("calibration needs a finite row that is not zero")
    rms = np.sqrt((rows * rows).mean(axis=1))
    median = float(np.float32(np.median(rms)))
    normal = rms <= OUTLIER_ROW * median
    unit = rows[normal] / rms[normal, None]
    scale = np.maximum(np.sqrt(unit.std(axis=0)).astype(np.float16), SMALLEST_SCALE)
    mean = unit.mean(axis=0).astype(np.float16)
    return Tables(median, mean, scale, scalar_tables(median, mean, scale, rows[normal].astype(np.float32)))


def relative_error(
    hidden_RD: NDArray[np.float32] | NDArray[np.float16],
    decoded_RD: NDArray[np.float32] | NDArray[np.float16],
) -> float:
    """Mean over rows of the squared error by the squared norm; a zero row counts 0."""
    exact = hidden_RD.astype(np.float64)
    wrong = decoded_RD.astype(np.float64) - exact
    energy = (exact * exact).sum(axis=1)
    return float(np.divide((wrong * wrong).sum(axis=1), energy, where=energy > 0, out=np.zeros_like(energy)).mean())


def kl_divergence(exact_NV: NDArray[np.float32], coded_NV: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(exact || coded) of the next-token distributions of N rows of logits, in nats."""
    exact, coded = _log_softmax(exact_NV), _log_softmax(coded_NV)
    divergence: NDArray[np.float64] = (np.exp(exact) * (exact - coded)).sum(axis=1)
    return divergence


def _log_softmax(logits_NV: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits_NV.astype(np.float64) - logits_NV.max(axis=1, keepdims=True)
    logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
