"""The reference of the rotated codecs (h4, h8): a payload's layout, and the way from rows to it.

Payload: the tables' id (8 bytes), two bits a row (row i in bits 2 (i % 4) of byte i // 4), then the rows.
A row of state CODED is its RMS f16, a scale byte a block, and the blocks' codes, each block cut into bit planes
from the most significant (8-bit codes are bytes as they are) and padded to a byte. HALF and SINGLE rows are f16 and
f32 values as they are; a ZERO row is nothing.

All arithmetic is FP32, each operation rounded to nearest even, none fused; native code gives the same bits.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError
from hyperlane.transport.codec.protocol import Buffer
from hyperlane.transport.codec.rotation import Span, blocks, hadamard, signs
from hyperlane.transport.codec.rows import (
    CODED,
    HALF,
    SINGLE,
    ZERO,
    Rows,
    check_width,
    may_be_coded,
    outlier_limit,
    pack_states,
    raw,
    raw_states,
    read_states,
    row_rms,
    states_bytes,
)
from hyperlane.transport.codec.tables import Tables


class Quantizer(Protocol):
    """One of the modules h4, h8: between rotated rows and the bytes of their records."""

    @property
    def ID(self) -> int: ...  # noqa: N802

    @property
    def BITS(self) -> int: ...  # noqa: N802

    def row_bytes(self, spans: tuple[Span, ...]) -> int: ...

    def quantize(
        self, values_RD: NDArray[np.float32], spans: tuple[Span, ...]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]: ...

    def dequantize(
        self, records: NDArray[np.uint8], spans: tuple[Span, ...], width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


class Rotation:
    """The fixed linear part for one set of tables: centre, scale, sign, transform, and its inverse."""

    def __init__(self, tables: Tables) -> None:
        scale = tables.scale_D.astype(np.float32)
        norms = np.concatenate([np.full(b - a, (b - a) ** -0.5, np.float32) for a, b in blocks(tables.width)])
        turn = signs(tables.width) * norms
        self.mean = tables.mean_D.astype(np.float32)
        self.forward = turn * (np.float32(1) / scale)
        self.backward = turn * scale

    def apply(self, rows_RD: NDArray[np.float32], rms_R: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows to rotated values [R, D]."""
        return self._transform((rows_RD * (np.float32(1) / rms_R)[:, None] - self.mean) * self.forward)

    def invert(
        self, numbers_RD: NDArray[np.float32], step_RD: NDArray[np.float32], rms_R: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Whole numbers and the steps of their blocks to rows [R, D]. The transform itself is exact."""
        turned_RD = self._transform(numbers_RD) * step_RD
        rows: NDArray[np.float32] = (turned_RD * self.backward + self.mean) * rms_R[:, None]
        return rows

    def _transform(self, values_RD: NDArray[np.float32]) -> NDArray[np.float32]:
        width = values_RD.shape[1]
        return np.concatenate([hadamard(values_RD[:, a:b]) for a, b in blocks(width)], axis=1)


class RotatedCodec:
    """The Codec of one quantizer and one boundary's tables, in NumPy."""

    def __init__(self, quantizer: Quantizer, tables: Tables) -> None:
        self.tables = tables
        self.quantizer = quantizer
        self.rotation = Rotation(tables)
        self.mean = self.rotation.mean
        self.limit = outlier_limit(tables.median_rms)
        self.spans = tuple((*span, quantizer.BITS) for span in blocks(tables.width))
        self.row_bytes = 2 + quantizer.row_bytes(self.spans)

    def max_bytes(self, count: int) -> int:
        """What `count` rows take that are all sent as FP32."""
        return 8 + states_bytes(count) + count * 4 * (self.tables.width + 2)

    def encode(self, hidden_RD: Rows, positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The payload of the rows; row i stands at `positions_R[i]` of its sequence, 0 is sent as it is."""
        check_width(hidden_RD, self.tables.width)
        states, records = self._rows(hidden_RD, positions_R)
        head = np.frombuffer(self.tables.id, np.uint8)
        return np.concatenate([head, pack_states(states), *records])

    def decode(self, payload: Buffer, out_RD: Rows) -> None:
        """Write the rows; TransportError where the payload is malformed or was made with other tables."""
        check_width(out_RD, self.tables.width)
        data = np.frombuffer(payload, np.uint8)
        rows, width = out_RD.shape
        states = read_states(data, rows, self.tables.id)
        sizes = (self.row_bytes, 2 * width, 4 * width, 0)
        lengths = np.array(sizes)[states]
        starts = 8 + states_bytes(rows) + np.concatenate([[0], np.cumsum(lengths)])
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
        rows_RD = hidden_RD.astype(np.float32)
        rms_R = row_rms(rows_RD)
        coded = may_be_coded(rows_RD, rms_R, positions_R, self.limit)
        coded_bytes, fits = self._coded(rows_RD[coded], rms_R[coded])
        states = raw_states(hidden_RD, rms_R)
        states[coded[fits]] = CODED
        chosen = dict(zip(coded.tolist(), coded_bytes, strict=True))
        records = [
            chosen[row] if state == CODED else raw(hidden_RD[row], state) for row, state in enumerate(states.tolist())
        ]
        return states, records

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
        return self.rotation.invert(*self.quantizer.dequantize(records[:, 2:], self.spans, width), rms_R)


def _read_half(records: NDArray[np.uint8], width: int) -> NDArray[np.float16]:
    return records.copy().view("<f2")


def _read_single(records: NDArray[np.uint8], width: int) -> NDArray[np.float32]:
    return records.copy().view("<f4")
