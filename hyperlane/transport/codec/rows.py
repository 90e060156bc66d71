"""How each row of a payload with tables goes: coded, as it is, or not at all.

A row goes as it is where its RMS is far above the calibrated median (an attention sink) or below 2^-14, at
position 0 of a sequence, and where it holds a NaN or an Inf. As it is means FP16, or FP32 where it is that and FP16
cannot hold it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TablesError, TransportError
from hyperlane.transport.codec.rotation import row_sum

CODED, HALF, SINGLE, ZERO = range(4)
OUTLIER_ROW = 4  # rows above this many times the calibrated median RMS are sent as they are
SMALLEST_RMS = np.float32(2**-14)  # below it FP16 keeps no ten bits
LARGEST_HALF = np.float32(65504)

Rows = NDArray[Any]  # float32 or float16
RAW_TYPES = {HALF: "<f2", SINGLE: "<f4"}


def row_rms(rows_RD: NDArray[np.float32]) -> NDArray[np.float16]:
    """The RMS of each row, in the order of sums that native code keeps."""
    with np.errstate(over="ignore", invalid="ignore"):
        rms_R: NDArray[np.float32] = np.sqrt(row_sum(rows_RD * rows_RD) / np.float32(rows_RD.shape[1]))
        return rms_R.astype(np.float16)


def may_be_coded(
    rows_RD: NDArray[np.float32], rms_R: NDArray[np.float16], positions_R: NDArray[np.uint32], limit: np.float32
) -> NDArray[np.intp]:
    """Which rows a codec may code, rising; `limit` is the largest RMS."""
    rms_R = rms_R.astype(np.float32)
    sane_R = (rms_R <= limit) & (rms_R >= SMALLEST_RMS) & (positions_R != 0)
    return np.flatnonzero(sane_R & np.isfinite(rows_RD).all(axis=1))


def raw_states(hidden_RD: Rows, rms_R: NDArray[np.float16]) -> NDArray[np.uint8]:
    """How each row goes if it is not coded."""
    states = np.full(len(hidden_RD), HALF, np.uint8)
    if hidden_RD.dtype == np.float32:
        holds = (np.abs(hidden_RD) <= LARGEST_HALF).all(axis=1) & (rms_R.astype(np.float32) >= SMALLEST_RMS)
        states[~holds] = SINGLE
    states[~hidden_RD.any(axis=1)] = ZERO
    return states


def outlier_limit(median_rms: float, times: int = OUTLIER_ROW) -> np.float32:
    """The RMS above which a row is sent as it is."""
    return np.float32(times) * np.float32(median_rms)


def states_bytes(rows: int) -> int:
    """Two bits a row."""
    return -(-rows // 4)


def pack_states(states_R: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Row i in bits 2 (i % 4) of byte i // 4."""
    padded = np.pad(states_R, (0, -len(states_R) % 4)).reshape(-1, 4)
    packed: NDArray[np.uint8] = (padded << np.array([0, 2, 4, 6], np.uint8)).sum(axis=1, dtype=np.uint8)
    return packed


def read_states(data: NDArray[np.uint8], rows: int, tables_id: bytes) -> NDArray[np.uint8]:
    """The states of a payload's rows. TablesError where it was made with other tables."""
    head = 8 + states_bytes(rows)
    if len(data) < head:
        raise TransportError(f"a payload of {len(data)} bytes is too short for {rows} rows; the sender is faulty")
    made_with = data[:8].tobytes()
    if made_with != tables_id:
        raise TablesError(
            f"the frame was made with codec tables {made_with.hex()}, this end holds {tables_id.hex()}; deploy again"
        )
    states: NDArray[np.uint8] = (data[8:head, None] >> np.array([0, 2, 4, 6], np.uint8)) & np.uint8(3)
    return states.reshape(-1)[:rows]


def check_width(rows_RD: Rows, width: int) -> None:
    """TransportError where the rows are of another width than the tables."""
    if rows_RD.shape[1] != width:
        raise TransportError(f"rows of width {rows_RD.shape[1]} do not fit codec tables of width {width}")


def raw(row_D: Rows, state: int) -> NDArray[np.uint8]:
    """The bytes of a row that is not coded."""
    return row_D.astype(RAW_TYPES[state]).view(np.uint8) if state in RAW_TYPES else np.empty(0, np.uint8)


def read_raw(data: NDArray[np.uint8], at: int, states_R: NDArray[np.uint8], out_RD: Rows) -> int:
    """Write the rows that are not coded, which stand one behind the other from `at`; returns where they end."""
    with np.errstate(over="ignore", invalid="ignore"):
        for row, state in enumerate(states_R.tolist()):
            if state == ZERO:
                out_RD[row] = 0
            elif state in RAW_TYPES:
                size = np.dtype(RAW_TYPES[state]).itemsize * out_RD.shape[1]
                if at + size > len(data):
                    raise TransportError(f"a payload of {len(data)} bytes ends within row {row}")
                out_RD[row] = data[at : at + size].copy().view(RAW_TYPES[state])
                at += size
    return at
