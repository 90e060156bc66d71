"""Frames as docs/wire.md describes them: the reference encoder and decoder.

A frame is a header of 40 bytes, a table of runs, a payload and a CRC32C over all of that, little-endian.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError
from hyperlane.transport.crc32c import crc32c

MAGIC = b"HYPL"
VERSION = 1
HEADER_BYTES = 40
RUN_BYTES = 10
CRC_BYTES = 4
FORK_BYTES = 4  # payload of a fork: two slots
TICKET_BYTES = 16  # payload of a placed frame: a ring's number and a turn
WANT_LOGITS = 1  # flags, bit 0: whole logits rows, not candidates
MAX_TEXT_BYTES = 4096  # payload of a greeting or an error
MISMATCH = "tables mismatch at worker "  # how an error begins that only lacks codec tables; then the worker's name
OUT_OF_MEMORY = "out of memory at worker "  # how an error begins that fewer slots, positions or rows avoid

_HEADER = struct.Struct("<4sBBBBIHHQIIQ")
_RUN = struct.Struct("<HHIH")
_CRC = struct.Struct("<I")
_FLAGS = WANT_LOGITS


class Kind(IntEnum):
    """What a frame's payload is."""

    HELLO = 0  # utf-8: who accepted this connection
    TOKENS = 1  # int32 [rows]
    HIDDEN = 2  # codec bytes of [rows, width]
    CANDIDATES = 3  # ids int32 [rows, width], logits float32 [rows, width], logsumexp float32 [rows]
    LOGITS = 4  # float32 [rows, width]
    ERROR = 5  # utf-8: why the step failed
    FORK = 6  # source slot, target slot uint16: the target takes over the first `rows` positions
    PLACED = 7  # ring, turn uint64: rows [rows, width] that were left where the receiver reads them (shortcut.py)


class Run(NamedTuple):
    """`count` consecutive tokens of one slot from `position`; logits are wanted for the last `outputs`."""

    slot: int
    outputs: int
    position: int
    count: int  # type: ignore[assignment]  # a tuple's method of that name is not missed


class Frame(NamedTuple):
    """One message of a data link; `kind` says what `payload` is. The native link relies on the order of the fields."""

    kind: Kind
    codec: int = 0
    flags: int = 0
    epoch: int = 0
    lane: int = 0
    step: int = 0
    rows: int = 0
    width: int = 0
    runs: tuple[Run, ...] = ()
    payload: bytes | memoryview = b""

    @property
    def text(self) -> str:
        """The payload of a HELLO or an ERROR."""
        return bytes(self.payload).decode("utf-8", "replace")


_KINDS = tuple(Kind)


class Header(NamedTuple):
    """The fixed part of a frame, checked by `unpack_header`."""

    magic: bytes
    version: int
    kind: int
    codec: int
    flags: int
    epoch: int
    lane: int
    runs: int
    step: int
    rows: int
    width: int
    payload_bytes: int

    @property
    def frame_bytes(self) -> int:
        return HEADER_BYTES + self.runs * RUN_BYTES + self.payload_bytes + CRC_BYTES


def pack(frame: Frame) -> bytes:
    """The whole frame as it stands on the wire. Raises TransportError where it would not be valid."""
    body = pack_prefix(frame) + bytes(frame.payload)
    return body + _CRC.pack(crc32c(body))


def pack_prefix(frame: Frame) -> bytes:
    """Header and run table: what stands before the payload. Raises TransportError as `pack`."""
    payload_bytes = memoryview(frame.payload).nbytes
    header = Header(
        MAGIC,
        VERSION,
        frame.kind,
        frame.codec,
        frame.flags,
        frame.epoch,
        frame.lane,
        len(frame.runs),
        frame.step,
        frame.rows,
        frame.width,
        payload_bytes,
    )
    try:
        prefix = _HEADER.pack(*header) + b"".join(
            [_RUN.pack(run.slot, run.outputs, run.position, run.count) for run in frame.runs]
        )
    except struct.error as error:
        raise TransportError(f"a field of step {frame.step} does not fit its place in a frame: {error}") from error
    _check_header(header)
    _check_runs(header, frame.runs)
    return prefix


def unpack(data: bytes | memoryview) -> Frame:
    """The one frame in `data`, whose payload stays a view of it. Raises TransportError for anything else."""
    header = unpack_header(data, max_frame_bytes=len(data))
    if header.frame_bytes != len(data):
        raise TransportError(f"a frame of {header.frame_bytes} bytes came with {len(data)}")
    stated, computed = _CRC.unpack_from(data, len(data) - CRC_BYTES)[0], crc32c(data[:-CRC_BYTES])
    if stated != computed:
        raise TransportError(f"checksum {stated:08x} of a frame, but its bytes give {computed:08x}")
    frame = unpack_checked(data)
    _check_runs(header, frame.runs)
    return frame


def unpack_header(data: bytes | memoryview, *, max_frame_bytes: int) -> Header:
    """The first 40 bytes of a frame, checked before anything is allocated by them. Raises TransportError."""
    if len(data) < HEADER_BYTES:
        raise TransportError(f"a frame starts with {HEADER_BYTES} bytes of header, not {len(data)}")
    header = Header._make(_HEADER.unpack_from(data))
    _check_header(header)
    if header.frame_bytes > max_frame_bytes:
        raise TransportError(f"a frame of {header.frame_bytes} bytes, over the limit of {max_frame_bytes}")
    return header


def unpack_checked(data: bytes | memoryview) -> Frame:
    """As `unpack`, for a frame that was checked before, as the native receiver does."""
    header = Header._make(_HEADER.unpack_from(data))
    table_stop = HEADER_BYTES + header.runs * RUN_BYTES
    runs = tuple(map(Run._make, _RUN.iter_unpack(data[HEADER_BYTES:table_stop])))
    return Frame(
        kind=_KINDS[header.kind],
        codec=header.codec,
        flags=header.flags,
        epoch=header.epoch,
        lane=header.lane,
        step=header.step,
        rows=header.rows,
        width=header.width,
        runs=runs,
        payload=memoryview(data)[table_stop : table_stop + header.payload_bytes],
    )


def row_positions(runs: Sequence[Run]) -> NDArray[np.uint32]:
    """The position in its sequence of each row of a TOKENS or HIDDEN frame, [R]."""
    if all(run.count == 1 for run in runs):
        return np.array([run.position for run in runs], np.uint32)
    return np.concatenate([np.arange(run.position, run.position + run.count, dtype=np.uint32) for run in runs])


def _check_header(header: Header) -> None:
    if header.magic != MAGIC:
        raise TransportError(f"{header.magic!r} where a frame starts with {MAGIC!r}; this is no Hyperlane peer")
    if header.version != VERSION:
        raise TransportError(f"a frame of version {header.version}, this is {VERSION}; run one release everywhere")
    if header.kind >= len(_KINDS):
        raise TransportError(f"a frame of unknown kind {header.kind}")
    if header.flags & ~_FLAGS:
        raise TransportError(f"a frame with unknown flags {header.flags:#04x}")
    if header.codec and header.kind != Kind.HIDDEN:
        raise TransportError(f"codec {header.codec} in a frame of kind {header.kind}, which has none")
    if header.kind in (Kind.HELLO, Kind.ERROR):
        _check_text(header)
    elif header.kind == Kind.FORK:
        _check_fork(header)
    else:
        _check_payload_bytes(header)


def _check_text(header: Header) -> None:
    if header.rows or header.width or header.runs or header.payload_bytes > MAX_TEXT_BYTES:
        raise TransportError(
            f"a text frame with {header.rows} rows, width {header.width}, {header.runs} runs and "
            f"{header.payload_bytes} bytes; it has no rows and at most {MAX_TEXT_BYTES} bytes"
        )


def _check_fork(header: Header) -> None:
    if header.rows == 0 or header.width or header.runs or header.payload_bytes != FORK_BYTES:
        raise TransportError(
            f"a fork of {header.rows} positions with width {header.width}, {header.runs} runs and "
            f"{header.payload_bytes} bytes; it has a position or more, {FORK_BYTES} bytes and nothing else"
        )


def _check_payload_bytes(header: Header) -> None:
    rows, width, payload_bytes = header.rows, header.width, header.payload_bytes
    if header.runs == 0 or width == 0:
        raise TransportError(f"a frame of kind {header.kind} with {header.runs} runs and width {width}")
    if header.kind == Kind.HIDDEN:  # a value takes at least a bit, so a small frame cannot ask for much memory
        valid = rows * width <= 8 * payload_bytes
    elif header.kind == Kind.TOKENS:
        valid = width == 1 and payload_bytes == 4 * rows
    elif header.kind == Kind.PLACED:
        valid = payload_bytes == TICKET_BYTES
    elif header.kind == Kind.CANDIDATES:
        valid = payload_bytes == rows * (8 * width + 4)
    else:
        valid = payload_bytes == 4 * rows * width
    if not valid:
        raise TransportError(f"a frame of kind {header.kind} with {payload_bytes} bytes for {rows} rows of {width}")


def _check_runs(header: Header, runs: Sequence[Run]) -> None:
    if header.kind == Kind.FORK:  # its rows are positions that it copies
        return
    for run in runs:
        if run.count == 0 or run.outputs > run.count or run.position + run.count > 1 << 32:
            raise TransportError(f"{run} of step {header.step} is empty or wants more than it has")
    if header.kind in (Kind.TOKENS, Kind.HIDDEN, Kind.PLACED):
        stated = sum(run.count for run in runs)
    else:
        stated = sum(run.outputs for run in runs)
    if stated != header.rows:
        raise TransportError(f"the runs of step {header.step} make {stated} rows, its header says {header.rows}")
