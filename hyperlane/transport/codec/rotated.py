"""The reference of the rotated codecs (h4, int4, h8): a payload's layout, and the way from rows to it.

Payload: the tables' id (8 bytes), two bits a row (row i in bits 2 (i % 4) of byte i // 4), then the rows.
A row of state CODED is its RMS f16, scale bytes (int4 one, the others one a block), and the blocks' codes, each
block cut into bit planes from the most significant (8-bit codes are bytes as they are) and padded to a byte.
HALF and SINGLE rows are f16 and f32 values as they are; a ZERO row is nothing.

All arithmetic is FP32, each operation rounded to nearest even, none fused; native code gives the same bits.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TablesError, TransportError
from hyperlane.transport.codec.protocol import Buffer
from hyperlane.transport.codec.rotation import Span, blocks, hadamard, halving_sum, row_sum, signs
from hyperlane.transport.codec.tables import Tables

CODED, HALF, SINGLE, ZERO = range(4)
OUTLIER_ROW = 4  # rows above this many times the calibrated median RMS are sent as they are
SMALLEST_RMS = np.float32(2**-14)  # below it FP16 keeps no ten bits
LARGEST_HALF = np.float32(65504)

Rows = NDArray[Any]  # float32 or float16


class Quantizer(Protocol):
    """One of the modules h4, sb4, h8: between rotated rows and the bytes of their records."""

    @property
    def ID(self) -> int: ...  # noqa: N802

    @property
    def SORTED(self) -> bool: ...  # noqa: N802

    def bits(self, tables: Tables) -> NDArray[np.uint8]: ...

    def row_bytes(self, spans: tuple[Span, ...]) -> int: ...

    def quantize(
        self, values_RD: NDArray[np.float32], spans: tuple[Span, ...]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]: ...

    def dequantize(self, records: NDArray[np.uint8], spans: tuple[Span, ...], width: int) -> NDArray[np.float32]: ...


class Rotation:
    """The fixed linear part for one set of tables: sort, centre, scale, sign, transform, and its inverse.

    Sorted blocks are brought to unit variance: channels of deviation scale^2, divided by scale, have a mean
    variance of mean(scale^2) in a block.
    """

    def __init__(self, tables: Tables, *, sort: bool) -> None:
        order = tables.order_D.astype(np.intp) if sort else np.arange(tables.width)
        scale = tables.scale_D.astype(np.float32)[order]
        norms = np.concatenate([np.full(b - a, (b - a) ** -0.5, np.float32) for a, b in blocks(tables.width)])
        turn = signs(tables.width) * norms
        unit = _block_deviations(scale) if sort else np.ones(tables.width, np.float32)
        self.order = order
        self.mean = tables.mean_D.astype(np.float32)[order]
        self.forward = turn * (np.float32(1) / (scale * unit))
        self.backward = turn * (scale * unit)

    def apply(self, rows_RD: NDArray[np.float32], rms_R: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows to rotated values [R, D]."""
        values = (rows_RD * (np.float32(1) / rms_R)[:, None])[:, self.order]
        return self._transform((values - self.mean) * self.forward)

    def invert(self, values_RD: NDArray[np.float32], rms_R: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotated values to rows [R, D]."""
        rows = np.empty_like(values_RD)
        rows[:, self.order] = (self._transform(values_RD) * self.backward + self.mean) * rms_R[:, None]
        return rows

    def _transform(self, values_RD: NDArray[np.float32]) -> NDArray[np.float32]:
        width = values_RD.shape[1]
        return np.concatenate([hadamard(values_RD[:, a:b]) for a, b in blocks(width)], axis=1)


class RotatedCodec:
    """The Codec of one quantizer and one boundary's tables, in NumPy."""

    def __init__(self, quantizer: Quantizer, tables: Tables) -> None:
        self.tables = tables
        self.quantizer = quantizer
        self.rotation = Rotation(tables, sort=quantizer.SORTED)
        bits_B = quantizer.bits(tables).tolist()
        self.blocks = tuple((*span, bits) for span, bits in zip(blocks(tables.width), bits_B, strict=True))
        self.spans = tuple(block for block in self.blocks if block[2])
        self.row_bytes = 2 + quantizer.row_bytes(self.spans)

    def encode(self, hidden_RD: Rows, positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The payload of the rows; row i stands at `positions_R[i]` of its sequence, 0 is sent as it is."""
        self._check_width(hidden_RD)
        states, records = self._rows(hidden_RD, positions_R)
        head = np.frombuffer(self.tables.id, np.uint8)
        return np.concatenate([head, _pack_states(states), *records])

    def decode(self, payload: Buffer, out_RD: Rows) -> None:
        """Write the rows; TransportError where the payload is malformed or was made with other tables."""
        self._check_width(out_RD)
        data = np.frombuffer(payload, np.uint8)
        rows, width = out_RD.shape
        states = self._states(data, rows)
        sizes = (self.row_bytes, 2 * width, 4 * width, 0)
        lengths = np.array(sizes)[states]
        starts = 8 + -(-rows // 4) + np.concatenate([[0], np.cumsum(lengths)])
        if starts[-1] != len(data):
            raise TransportError(f"a payload of {len(data)} bytes, its rows take {starts[-1]}")
        with np.errstate(over="ignore", invalid="ignore"):
            for state, read in ((CODED, self._read_coded), (HALF, _read_half), (SINGLE, _read_single)):
                of_state = np.flatnonzero(states == state)
                at = starts[of_state][:, None] + np.arange(sizes[state])
                out_RD[of_state] = read(data[at], width)
        out_RD[states == ZERO] = 0

    def _rows(
        self, hidden_RD: Rows, positions_R: NDArray[np.uint32]
    ) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
        """Each row's state and bytes."""
        with np.errstate(over="ignore", invalid="ignore"):
            rows_RD = hidden_RD.astype(np.float32)
            rms_R = np.sqrt(row_sum(rows_RD * rows_RD) / np.float32(rows_RD.shape[1])).astype(np.float16)
        limit = outlier_limit(self.tables)
        sane_R = (rms_R.astype(np.float32) <= limit) & (rms_R.astype(np.float32) >= SMALLEST_RMS)
        coded = np.flatnonzero(sane_R & (positions_R != 0) & np.isfinite(rows_RD).all(axis=1))
        coded_bytes, fits = self._coded(rows_RD[coded], rms_R[coded])
        states = self._raw_states(hidden_RD, rows_RD, rms_R)
        states[coded[fits]] = CODED
        chosen = dict(zip(coded.tolist(), coded_bytes, strict=True))
        records = [
            chosen[row] if state == CODED else _raw(hidden_RD[row], state) for row, state in enumerate(states.tolist())
        ]
        return states, records

    def _raw_states(
        self, hidden_RD: Rows, rows_RD: NDArray[np.float32], rms_R: NDArray[np.float16]
    ) -> NDArray[np.uint8]:
        """How each row goes if it is not coded: FP16, but FP32 where it is that and FP16 cannot hold it."""
        states = np.full(len(rows_RD), HALF, np.uint8)
        if hidden_RD.dtype == np.float32:
            holds = (np.abs(rows_RD) <= LARGEST_HALF).all(axis=1) & (rms_R.astype(np.float32) >= SMALLEST_RMS)
            states[~holds] = SINGLE
        states[~rows_RD.any(axis=1)] = ZERO
        return states

    def _coded(
        self, rows_RD: NDArray[np.float32], rms_R: NDArray[np.float16]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Records [R, row_bytes] of rows to code, and which of them the scales can hold."""
        values = self.rotation.apply(rows_RD, rms_R.astype(np.float32))
        records, fits = self.quantizer.quantize(values, self.spans)
        rms_bytes = rms_R.astype("<f2")[:, None].view(np.uint8)
        return np.concatenate([rms_bytes, records], axis=1), fits

    def _read_coded(self, records: NDArray[np.uint8], width: int) -> NDArray[np.float32]:
        rms_R = records[:, :2].copy().view("<f2")[:, 0].astype(np.float32)
        return self.rotation.invert(self.quantizer.dequantize(records[:, 2:], self.spans, width), rms_R)

    def _check_width(self, rows_RD: Rows) -> None:
        if rows_RD.shape[1] != self.tables.width:
            raise TransportError(
                f"rows of width {rows_RD.shape[1]} do not fit codec tables of width {self.tables.width}"
            )

    def _states(self, data: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
        head = 8 + -(-rows // 4)
        if len(data) < head:
            raise TransportError(f"a payload of {len(data)} bytes is too short for {rows} rows; the sender is faulty")
        made_with = data[:8].tobytes()
        if made_with != self.tables.id:
            raise TablesError(
                f"the frame was made with codec tables {made_with.hex()}, "
                f"this end holds {self.tables.id.hex()}; deploy again"
            )
        states: NDArray[np.uint8] = (data[8:head, None] >> np.array([0, 2, 4, 6], np.uint8)) & np.uint8(3)
        return states.reshape(-1)[:rows]


def outlier_limit(tables: Tables) -> np.float32:
    """The RMS above which a row is sent as it is."""
    return np.float32(OUTLIER_ROW) * np.float32(tables.median_rms)


def _block_deviations(scale_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each channel's block: the root of its mean squared scale."""
    parts = []
    for start, stop in blocks(len(scale_D)):
        part = scale_D[None, start:stop]
        mean = halving_sum(part * part) * np.float32(1 / (stop - start))
        parts.append(np.repeat(np.sqrt(mean), stop - start))
    return np.concatenate(parts)


def _pack_states(states_R: NDArray[np.uint8]) -> NDArray[np.uint8]:
    padded = np.pad(states_R, (0, -len(states_R) % 4)).reshape(-1, 4)
    packed: NDArray[np.uint8] = (padded << np.array([0, 2, 4, 6], np.uint8)).sum(axis=1, dtype=np.uint8)
    return packed


def _raw(row_D: Rows, state: int) -> NDArray[np.uint8]:
    kinds = {HALF: "<f2", SINGLE: "<f4"}
    return row_D.astype(kinds[state]).view(np.uint8) if state in kinds else np.empty(0, np.uint8)


def _read_half(records: NDArray[np.uint8], width: int) -> NDArray[np.float16]:
    return records.copy().view("<f2")


def _read_single(records: NDArray[np.uint8], width: int) -> NDArray[np.float32]:
    return records.copy().view("<f4")
