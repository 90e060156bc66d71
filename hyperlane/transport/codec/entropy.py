"""The reference of `int4`: multiples of each channel's step, entropy-coded (rans.py), by a boundary's scalar tables.

A row's value x becomes y = (x / r - mean) / step, where r is the row's RMS to three bits; the row's scale
g = e4m3(16 * mean |y| / loudness) / 16 makes rows take alike many bits; k = round(y / g) is what travels. Decoding
gives ((k * g) * step + mean) * r.

Payload: the tables' id (8 bytes), two bits a row (rows.py), the rows that go as they are, in their order; then of
the rows that are coded, in their order: heads, sizes, strings, counts, patches.
- A head is r's byte (bits 7 to 14 of its FP16), g's byte, to which 128 is added where the row has patches, and the
  low bits of k: vector by vector of the tables' order, bit 0 first, of the lanes whose shift is above the bit, lane
  by lane; a string of bits, the first in a byte's lowest, padded to a byte.
- A string (rans.py) holds the symbols of 32,768 / (32 V) rows, at least one, a step a vector; its size is a u32.
- A symbol that its table has not is coded as the nearest one that it has, and patched: channel u16, k >> shift i8.
  The rows that have patches have a count of them, u8; they stand row by row, by place in the tables' order.

Rows of an RMS above 16 times the calibrated median go as they are here, not above 4 times: a few patches hold what an
attention sink has more than others. A row also goes as it is where r or g are beyond their bytes, a k >> shift is
beyond i8, or patches are more than a 32nd of its channels, or 255.

All arithmetic is FP32, each operation rounded to nearest even, none fused; native code gives the same bits. What a
row decodes to does not depend on the rows beside it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError
from hyperlane.transport.codec import e4m3, rans, rows, scale
from hyperlane.transport.codec.protocol import Buffer
from hyperlane.transport.codec.rotation import row_sum
from hyperlane.transport.codec.scalar_tables import MIDDLE, SYMBOLS, vectors
from hyperlane.transport.codec.tables import Tables

ID = 3
STRING_VALUES = 32768  # lanes of a string, where a row is not longer
OUTLIER_ROW = 16  # rows above this many times the calibrated median RMS are sent as they are
PATCHED = 128  # in g's byte
PATCH = np.dtype([("channel", "<u2"), ("rest", "i1")])
LARGEST_R = 247  # the byte of the largest finite r
LARGEST_MULTIPLE = np.float32(32767)


@dataclass(frozen=True)
class Multiples:
    """Rows as what travels: the bytes of r and g and k of each, and whether the format can hold them."""

    r_R: NDArray[np.uint8]
    g_R: NDArray[np.uint8]
    k_RD: NDArray[np.int16]
    fits_R: NDArray[np.bool_]


class EntropyCodec:
    """The Codec of one boundary's tables, in NumPy."""

    def __init__(self, tables: Tables) -> None:
        scalar = tables.scalar
        self.tables = tables
        self.limit = rows.outlier_limit(tables.median_rms, OUTLIER_ROW)
        self.step = scalar.step_D.astype(np.float32)
        self.inverse_step = np.float32(1) / self.step
        self.mean = tables.mean_D.astype(np.float32)
        self.sixteenfold = np.float32(16 / (tables.width * scalar.loudness))
        self.order = scalar.order_D.astype(np.intp)
        self.low_P = low_places(scalar.shift_D[self.order])
        self.head_bytes = 2 + -(-len(self.low_P) // 8)
        self.string_rows = max(STRING_VALUES // (rans.LANES * vectors(tables.width)), 1)
        self.most_patches = min(tables.width // 32, 255)
        present = scalar.frequency_TK > 0
        self.lowest_T = present.argmax(axis=1)
        self.highest_T = SYMBOLS - 1 - present[:, ::-1].argmax(axis=1)
        self.table_D = np.repeat(scalar.table_V, rans.LANES)[: tables.width]  # by place

    def max_bytes(self, count: int) -> int:
        """The most that `count` rows take."""
        width = self.tables.width
        lanes = rans.LANES * vectors(width)
        coded = self.head_bytes + 4 + rans.STATES_BYTES + lanes + 1 + PATCH.itemsize * self.most_patches
        return 8 + rows.states_bytes(count) + count * max(4 * width, coded)

    def encode(self, hidden_RD: rows.Rows, positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The payload of the rows; row i stands at `positions_R[i]` of its sequence, 0 is sent as it is."""
        rows.check_width(hidden_RD, self.tables.width)
        rows_RD = hidden_RD.astype(np.float32)
        rms_R = rows.row_rms(rows_RD)
        coded_C = rows.may_be_coded(rows_RD, rms_R, positions_R, self.limit)
        multiples = self.multiples(rows_RD[coded_C], rms_R[coded_C])
        symbol_CD, rest_CD = self._symbols(multiples.k_RD)
        patched_CD = symbol_CD != rest_CD + MIDDLE
        fits_C = multiples.fits_R & (np.abs(rest_CD + 0.5) < 128).all(axis=1)
        fits_C &= patched_CD.sum(axis=1) <= self.most_patches
        states = rows.raw_states(hidden_RD, rms_R)
        states[coded_C[fits_C]] = rows.CODED
        parts = [np.frombuffer(self.tables.id, np.uint8), rows.pack_states(states)]
        parts += [rows.raw(row, state) for row, state in zip(hidden_RD, states.tolist(), strict=True)]
        if fits_C.any():
            strings = rans.encode(*self._frequencies(symbol_CD[fits_C]))
            sizes = np.array([len(string) for string in strings], "<u4").view(np.uint8)
            patches = self._patches(patched_CD[fits_C], rest_CD[fits_C])
            parts += [self._heads(multiples, patched_CD)[fits_C].reshape(-1), sizes, *strings, patches]
        return np.concatenate(parts)

    def decode(self, payload: Buffer, out_RD: rows.Rows) -> None:
        """Write the rows; TransportError where the payload is malformed or was made with other tables."""
        rows.check_width(out_RD, self.tables.width)
        data = np.frombuffer(payload, np.uint8)
        states = rows.read_states(data, len(out_RD), self.tables.id)
        at = rows.read_raw(data, 8 + rows.states_bytes(len(out_RD)), states, out_RD)
        coded_C = np.flatnonzero(states == rows.CODED)
        part = Cursor(data, at)
        heads_CH = part.take(len(coded_C) * self.head_bytes).reshape(len(coded_C), self.head_bytes)
        strings = -(-len(coded_C) // self.string_rows)
        sizes = part.take(4 * strings).view("<u4").tolist()
        symbol_CD = self._decoded_symbols([part.take(size) for size in sizes], len(coded_C))
        rest_CD = symbol_CD.astype(np.int32) - MIDDLE
        self._patch(rest_CD, np.flatnonzero(heads_CH[:, 1] & PATCHED), part)
        with np.errstate(over="ignore", invalid="ignore"):
            out_RD[coded_C] = self._values(heads_CH, rest_CD)

    def multiples(self, rows_RD: NDArray[np.float32], rms_R: NDArray[np.float16]) -> Multiples:
        """What of finite rows travels."""
        r_R = r_byte(rms_R)
        y_RD = (rows_RD * (np.float32(1) / r_value(r_R))[:, None] - self.mean) * self.inverse_step
        sixteenfold_R = row_sum(np.abs(y_RD)) * self.sixteenfold
        g_R = e4m3.nearest(sixteenfold_R)
        k_RD = np.rint(y_RD * scale.inverse(scale.step(g_R))[:, None])
        fits_R = (sixteenfold_R <= scale.LARGEST) & (r_R <= LARGEST_R)
        k_RD = np.clip(k_RD, -LARGEST_MULTIPLE, LARGEST_MULTIPLE)  # which no i8 holds, whatever the shift
        return Multiples(r_R, g_R, k_RD.astype(np.int16), fits_R)

    def _symbols(self, k_RD: NDArray[np.int16]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Symbols and rests [R, D] by place."""
        rest_RD = (k_RD >> self.tables.scalar.shift_D)[:, self.order].astype(np.int32)
        return np.clip(rest_RD + MIDDLE, self.lowest_T[self.table_D], self.highest_T[self.table_D]), rest_RD

    def _frequencies(self, symbol_CD: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Of each lane of each step of each string: frequency and start."""
        frequency_TK = self.tables.scalar.frequency_TK
        parts = (frequency_TK[self.table_D, symbol_CD], rans.starts(frequency_TK)[self.table_D, symbol_CD])
        return self._steps(parts[0], 0), self._steps(parts[1], 0)

    def _steps(self, values_CD: NDArray[Any], absent: int) -> NDArray[Any]:
        """[C, D] by place -> [strings, steps, lanes]; lanes that have no channel are `absent`."""
        count, width = values_CD.shape
        lanes = rans.LANES * vectors(width)
        rows_per = self.string_rows
        padded = np.pad(values_CD, ((0, -count % rows_per), (0, lanes - width)), constant_values=absent)
        return padded.reshape(-1, rows_per * vectors(width), rans.LANES)

    def _decoded_symbols(self, strings: list[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
        width = self.tables.width
        if not count:
            return np.empty((0, width), np.uint8)
        table_SNL = self._steps(np.broadcast_to(self.table_D.astype(np.int16), (count, width)), -1)
        symbol_SNL = rans.decode(strings, self.tables.scalar.frequency_TK, table_SNL)
        return symbol_SNL.reshape(-1, rans.LANES * vectors(width))[:count, :width]

    def _patches(self, patched_CD: NDArray[np.bool_], rest_CD: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Counts, then patches."""
        count_C = patched_CD.sum(axis=1)
        row, place = np.nonzero(patched_CD)
        patches = np.empty(len(row), PATCH)
        patches["channel"], patches["rest"] = self.order[place], rest_CD[row, place]
        return np.concatenate([count_C[count_C > 0].astype(np.uint8), patches.view(np.uint8)])

    def _patch(self, rest_CD: NDArray[np.int32], patched_P: NDArray[np.intp], part: "Cursor") -> None:
        """Read the patches of the rows `patched_P` into their rests."""
        row = np.repeat(patched_P, part.take(len(patched_P)))
        patches = part.take(len(part.data) - part.at)
        if len(patches) != PATCH.itemsize * len(row):
            raise TransportError(f"a payload has {len(patches)} bytes for {len(row)} patches; the sender is faulty")
        channel = patches.view(PATCH)["channel"].astype(np.intp)
        if (channel >= self.tables.width).any():
            raise TransportError(f"a payload patches channel {channel.max()} of {self.tables.width}")
        rest_CD[row, np.argsort(self.order)[channel]] = patches.view(PATCH)["rest"]

    def _heads(self, multiples: Multiples, patched_RD: NDArray[np.bool_]) -> NDArray[np.uint8]:
        place_P, bit_P = self.low_P[:, 0], self.low_P[:, 1]
        low_RP = (multiples.k_RD[:, self.order[place_P]] >> bit_P) & 1
        low_bytes = np.packbits(low_RP.astype(np.uint8), axis=1, bitorder="little")
        g_R = multiples.g_R + PATCHED * patched_RD.any(axis=1).astype(np.uint8)
        return np.concatenate([multiples.r_R[:, None], g_R[:, None], low_bytes], axis=1)

    def _values(self, heads_CH: NDArray[np.uint8], rest_CD: NDArray[np.int32]) -> NDArray[np.float32]:
        """Rows [C, D] of their heads and rests by place."""
        r_C, g_C = r_value(heads_CH[:, 0]), scale.step(heads_CH[:, 1] & np.uint8(PATCHED - 1))
        k_CD = rest_CD << self.tables.scalar.shift_D[self.order]
        low_CP = np.unpackbits(heads_CH[:, 2:], axis=1, count=len(self.low_P), bitorder="little").astype(np.int32)
        for (place, bit), low_C in zip(self.low_P.tolist(), low_CP.T, strict=True):
            k_CD[:, place] |= low_C << bit
        y_CD = np.empty(k_CD.shape, np.float32)
        y_CD[:, self.order] = k_CD.astype(np.float32) * g_C[:, None]
        values: NDArray[np.float32] = (y_CD * self.step + self.mean) * r_C[:, None]
        return values


def r_byte(rms_R: NDArray[np.float16]) -> NDArray[np.uint8]:
    """FP16 that is not negative to its exponent and three bits of mantissa, ties to even."""
    bits = rms_R.view(np.uint16)
    return ((bits + 0x3F + (bits >> 7 & 1)) >> 7).astype(np.uint8)


def r_value(byte_R: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `r_byte` stands for."""
    return (byte_R.astype(np.uint16) << 7).view(np.float16).astype(np.float32)


class Cursor:
    """Takes the bytes of a payload one part after another; TransportError where they end too early."""

    def __init__(self, data: NDArray[np.uint8], at: int) -> None:
        self.data = data
        self.at = at

    def take(self, size: int) -> NDArray[np.uint8]:
        part = self.data[self.at : self.at + size]
        if len(part) < size:
            raise TransportError(f"a payload of {len(self.data)} bytes ends {size - len(part)} bytes too early")
        self.at += size
        return part.copy()


def low_places(shift_D: NDArray[np.uint8]) -> NDArray[np.intp]:
    """(place, bit) [P, 2] of the bits that go as they are, in their order; `shift_D` by place."""
    places = [
        (place, bit)
        for start in range(0, len(shift_D), rans.LANES)
        for bit in range(int(shift_D[start : start + rans.LANES].max()))
        for place in range(start, min(start + rans.LANES, len(shift_D)))
        if shift_D[place] > bit
    ]
    return np.array(places, np.intp).reshape(-1, 2)
