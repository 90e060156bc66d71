"""The steps and symbol tables of `int4` from a text's rows: as fine as the bits allow.

A channel's step goes with a power of its deviation: 0 would be the least squared error, 1 the same relative error for
each; what the model's output feels most lies between.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec.entropy import PATCH, STRING_VALUES, EntropyCodec
from hyperlane.transport.codec.rans import LANES, TOTAL
from hyperlane.transport.codec.rows import LARGEST_HALF, SMALLEST_RMS
from hyperlane.transport.codec.scalar_tables import (
    BLOCK,
    MIDDLE,
    MOST_SHIFT,
    SMALLEST_STEP,
    SYMBOLS,
    ScalarTables,
    vectors,
)
from hyperlane.transport.codec.tables import Tables

INT4_BITS = 3.95  # a value, everything of a coded row counted
LEAST_BITS = 3.4  # a value, its row's part not counted, where rows are so narrow that this part is large
EXPONENT = 0.25  # of the deviation in the step
WIDEST_REST = 4.0  # steps in a deviation, what is above goes to the low bits
CLASSES = 4  # of vectors, an octave of steps in a deviation
MOST_ROWS = 1024  # that are measured
PATCH_BITS = 8 * PATCH.itemsize + 8  # a lone one, and its count
_SEARCHES = 6  # of the step, each by the slope of a bit an octave


def scalar_tables(
    median_rms: float, mean_D: NDArray[np.float16], scale_D: NDArray[np.float16], rows_RD: NDArray[np.float32]
) -> ScalarTables:
    """For rows like `rows_RD`, whose x / r has these means, and deviations of scale^2."""
    rows = _codable(np.ascontiguousarray(rows_RD[:: -(-len(rows_RD) // MOST_ROWS)]))
    deviation_D = scale_D.astype(np.float64) ** 2
    log_step = -3.0
    for _ in range(_SEARCHES):
        step_D = np.maximum((2.0**log_step * deviation_D**EXPONENT).astype(np.float16), SMALLEST_STEP)
        tables = _with_loudness(Tables(median_rms, mean_D, scale_D, _structure(step_D, deviation_D)), rows)
        fitted, bits = _fitted(tables, rows)
        log_step = min(log_step + bits - _bits_to_spend(len(step_D)), 4.0)
    return fitted


def _codable(rows_RD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those whose RMS FP16 holds; where there are none, all of them, of RMS 1: others go as they are."""
    rms_R = np.sqrt((rows_RD.astype(np.float64) ** 2).mean(axis=1))
    held_R = (rms_R >= SMALLEST_RMS) & (rms_R <= LARGEST_HALF)
    found: NDArray[np.float32] = rows_RD[held_R] if held_R.any() else (rows_RD / rms_R[:, None]).astype(np.float32)
    return found


def _bits_to_spend(width: int) -> float:
    """A value, on its symbol and low bits."""
    strings = max(STRING_VALUES // (LANES * vectors(width)), 1)
    row_bits = 2 + 16 + 8 * (4 + LANES) / strings
    return max(INT4_BITS - row_bits / width, LEAST_BITS)


def _structure(step_D: NDArray[np.float16], deviation_D: NDArray[np.float64]) -> ScalarTables:
    """Order, shifts and the classes of vectors; flat frequencies and no loudness yet."""
    width = len(step_D)
    ratio_D = deviation_D / step_D.astype(np.float64)
    order = [a + np.argsort(-ratio_D[a : a + BLOCK], kind="stable") for a in range(0, width, BLOCK)]
    order_D = np.concatenate(order)
    shift_D = np.clip(np.ceil(np.log2(ratio_D / WIDEST_REST)), 0, MOST_SHIFT)
    octave_D = np.log2(np.maximum(ratio_D / 2**shift_D, 2.0**-4))[order_D]
    parts = [octave_D[start : start + LANES] for start in range(0, width, LANES)]
    classes, table_V = np.unique([round(CLASSES * float(part.mean())) for part in parts], return_inverse=True)
    flat_TK = np.full((len(classes), SYMBOLS), TOTAL // SYMBOLS, np.uint8)
    return ScalarTables(
        1.0, step_D, order_D.astype(np.uint32), shift_D.astype(np.uint8), table_V.astype(np.uint8), flat_TK
    )


def _with_loudness(tables: Tables, rows_RD: NDArray[np.float32]) -> Tables:
    unit_RD = rows_RD / np.sqrt((rows_RD.astype(np.float64) ** 2).mean(axis=1, keepdims=True))
    loud = np.abs(unit_RD - tables.mean_D) / tables.scalar.step_D.astype(np.float64)
    loudness = float(np.float32(max(loud.mean(), 2.0**-20)))
    return replace(tables, scalar=replace(tables.scalar, loudness=loudness))


def _fitted(tables: Tables, rows_RD: NDArray[np.float32]) -> tuple[ScalarTables, float]:
    """The tables with frequencies for such rows, and the bits a value that symbols and low bits of these take."""
    codec, scalar = EntropyCodec(tables), tables.scalar
    rms_R = np.sqrt((rows_RD.astype(np.float64) ** 2).mean(axis=1)).astype(np.float16)
    rest_RD = (codec.multiples(rows_RD, rms_R).k_RD >> scalar.shift_D)[:, codec.order].astype(np.int64)
    frequency_TK = np.empty_like(scalar.frequency_TK)
    symbol_bits = 0.0
    for table in range(len(frequency_TK)):
        rest = rest_RD[:, codec.table_D == table].ravel()
        count_K = np.bincount(np.clip(rest + MIDDLE, 0, SYMBOLS - 1), minlength=SYMBOLS)
        frequency_TK[table] = frequencies(count_K)
        symbol_bits += _bits(rest + MIDDLE, frequency_TK[table])
    row_bits = symbol_bits / len(rows_RD) + 8 * (codec.head_bytes - 2)
    return replace(scalar, frequency_TK=frequency_TK), row_bits / tables.width


def frequencies(count_K: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Of 256: what codes symbols that come `count_K` times in the fewest bits.

    A symbol that comes so seldom that a patch is cheaper than a 256th has none, unless it lies between others.
    """
    share_K = (count_K + _TAIL) / (count_K + _TAIL).sum()
    kept = np.flatnonzero(share_K * PATCH_BITS > np.log2(TOTAL / (TOTAL - 1)))
    kept = np.arange(min(kept[0], MIDDLE - 1), max(kept[-1], MIDDLE) + 1)
    frequency_K = np.zeros(SYMBOLS, np.int64)
    frequency_K[kept] = np.maximum(np.floor(share_K[kept] * TOTAL), 1)
    while (left := TOTAL - int(frequency_K.sum())) != 0:
        change = 1 if left > 0 else -1
        movable = kept if left > 0 else kept[frequency_K[kept] > 1]
        gain = share_K[movable] * np.log2((frequency_K[movable] + change) / frequency_K[movable])
        frequency_K[movable[np.argmax(gain)]] += change
    return frequency_K.astype(np.uint8)


def _bits(symbols: NDArray[np.int64], frequency_K: NDArray[np.uint8]) -> float:
    """What coding `symbols` takes, patches among them; they may lie outside the table."""
    present = np.flatnonzero(frequency_K)
    coded = np.clip(symbols, present[0], present[-1])
    price_K = np.log2(TOTAL / np.maximum(frequency_K, 1))
    return float(price_K[coded].sum() + PATCH_BITS * (coded != symbols).sum())


# Added to every count: no text is long enough to rule a symbol out.
_TAIL = 0.5 * np.exp(-np.abs(np.arange(SYMBOLS) - MIDDLE + 0.5) / 4)
