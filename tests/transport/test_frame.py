"""Frames: golden bytes, round trips, and everything that is not a valid frame."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlane.errors import TransportError
from hyperlane.transport.crc32c import crc32c
from hyperlane.transport.frame import (
    HEADER_BYTES,
    WANT_LOGITS,
    Frame,
    Kind,
    Run,
    pack,
    row_positions,
    unpack,
    unpack_header,
)
from hyperlane.transport.native import extension

TOKENS = Frame(
    kind=Kind.TOKENS,
    flags=WANT_LOGITS,
    epoch=3,
    lane=2,
    step=7,
    rows=3,
    width=1,
    runs=(Run(slot=4, outputs=0, position=256, count=2), Run(slot=5, outputs=1, position=9, count=1)),
    payload=np.array([1, 2, 3], "<i4").tobytes(),
)
GOLDEN = bytes.fromhex(
    "4859504c 01 01 00 01 03000000 0200 0200 0700000000000000 03000000 01000000 0c00000000000000"
    "0400 0000 00010000 0200  0500 0100 09000000 0100"
    "01000000 02000000 03000000"
    "a0babfad"
)

FORK = Frame(kind=Kind.FORK, epoch=3, lane=2, step=8, rows=256, payload=np.array([4, 9], "<u2").tobytes())
GOLDEN_FORK = bytes.fromhex(
    "4859504c 01 06 00 00 03000000 0200 0000 0800000000000000 00010000 00000000 0400000000000000 0400 0900 36a4b17e"
)

PLACED = TOKENS._replace(kind=Kind.PLACED, flags=0, step=9, width=64, payload=np.array([5, 9], "<u8").tobytes())
GOLDEN_PLACED = bytes.fromhex(
    "4859504c 01 07 00 00 03000000 0200 0200 0900000000000000 03000000 40000000 1000000000000000"
    "0400 0000 00010000 0200  0500 0100 09000000 0100"
    "0500000000000000 0900000000000000"
    "90677b64"
)


def resealed(data: bytes) -> bytes:
    """The same frame with a checksum that fits."""
    return data[:-4] + struct.pack("<I", crc32c(data[:-4]))


def patched(offset: int, fmt: str, value: int, frame: bytes = GOLDEN) -> bytes:
    data = bytearray(frame)
    struct.pack_into(fmt, data, offset, value)
    return resealed(bytes(data))


# What a peer may send that is no frame of ours; test_link.py sends the same to living receivers.
ATTACKS = {
    "garbage": b"GET / HTTP/1.1\r\nHost: worker\r\nUser-Agent: curl\r\n\r\n",
    "magic": patched(0, "<I", 0),
    "version": patched(4, "<B", 2),
    "kind": patched(5, "<B", 8),
    "fork of nothing": patched(24, "<I", 0, GOLDEN_FORK),
    "fork with a width": patched(28, "<I", 1, GOLDEN_FORK),
    "fork of three slots": resealed(patched(32, "<Q", 6, GOLDEN_FORK)[:-4] + bytes(6)),
    "fork with runs": patched(14, "<H", 1, GOLDEN_FORK),
    "tokens as a fork": patched(5, "<B", 6),
    "placed without a ticket": resealed(patched(32, "<Q", 8, GOLDEN_PLACED)[:-12] + bytes(4)),
    "placed with a codec": patched(6, "<B", 1, GOLDEN_PLACED),
    "placed rows that are not its runs'": patched(24, "<I", 4, GOLDEN_PLACED),
    "codec of tokens": patched(6, "<B", 1),
    "flags": patched(7, "<B", 0x82),
    "no runs": patched(14, "<H", 0),
    "more runs than bytes": patched(14, "<H", 65535),
    "more rows than runs": patched(24, "<I", 4),
    "rows of 2^32 - 1": patched(24, "<I", 2**32 - 1),
    "width": patched(28, "<I", 2),
    "width 0": patched(28, "<I", 0),
    "payload of 2^63": patched(32, "<Q", 2**63),
    "payload of 2^64 - 1": patched(32, "<Q", 2**64 - 1),
    "empty run": patched(48, "<H", 0),
    "more outputs than rows": patched(42, "<H", 3),
    "a position beyond 2^32": patched(44, "<I", 2**32 - 1),
    "checksum": GOLDEN[:-1] + bytes([GOLDEN[-1] ^ 1]),
    "payload": GOLDEN[:60] + bytes([GOLDEN[60] ^ 1]) + GOLDEN[61:],
}


def test_golden_bytes() -> None:
    assert pack(TOKENS).hex() == GOLDEN.hex()
    assert unpack(GOLDEN) == TOKENS
    assert pack(FORK).hex() == GOLDEN_FORK.hex()
    assert unpack(GOLDEN_FORK) == FORK
    assert pack(PLACED).hex() == GOLDEN_PLACED.hex()
    assert unpack(GOLDEN_PLACED) == PLACED


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused(name: str) -> None:
    with pytest.raises(TransportError) as caught:
        unpack(ATTACKS[name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", range(len(GOLDEN)))
def test_a_truncated_frame_is_refused(length: int) -> None:
    with pytest.raises(TransportError):
        unpack(GOLDEN[:length])


def test_rows_times_width_that_wraps_in_64_bits_is_refused() -> None:
    header = struct.pack("<4sBBBBIHHQIIQ", b"HYPL", 1, Kind.LOGITS, 0, 0, 0, 0, 1, 0, 2**31, 2**31, 0)
    with pytest.raises(TransportError, match="0 bytes for 2147483648 rows"):
        unpack_header(header, max_frame_bytes=1 << 20)


def test_a_small_hidden_frame_cannot_ask_for_much_memory() -> None:
    header = struct.pack("<4sBBBBIHHQIIQ", b"HYPL", 1, Kind.HIDDEN, 1, 0, 0, 0, 1, 0, 1 << 20, 1 << 20, 100)
    with pytest.raises(TransportError, match="100 bytes for 1048576 rows"):
        unpack_header(header, max_frame_bytes=1 << 20)


def test_a_frame_over_the_limit_is_refused_by_its_header() -> None:
    unpack_header(GOLDEN, max_frame_bytes=len(GOLDEN))
    with pytest.raises(TransportError, match=f"{len(GOLDEN)} bytes, over the limit of {len(GOLDEN) - 1}"):
        unpack_header(GOLDEN[:HEADER_BYTES], max_frame_bytes=len(GOLDEN) - 1)


@pytest.mark.parametrize(
    "changes",
    [{"epoch": 2**32}, {"lane": -1}, {"rows": 2}, {"width": 3}, {"kind": Kind.HELLO}, {"runs": ()}, {"codec": 1}],
)
def test_an_invalid_frame_is_not_sent(changes: dict[str, object]) -> None:
    fields = TOKENS._asdict()
    with pytest.raises(TransportError):
        pack(Frame(**(fields | changes)))


runs_strategy = st.lists(
    st.builds(
        lambda slot, position, count, outputs: Run(slot, min(outputs, count), position, count),
        st.integers(0, 65535),
        st.integers(0, 2**31),
        st.integers(1, 300),
        st.integers(0, 300),
    ),
    min_size=1,
    max_size=20,
)


@given(runs=runs_strategy, width=st.integers(1, 9), step=st.integers(0, 2**64 - 1), kind=st.sampled_from(Kind))
def test_a_frame_comes_back_as_it_was(runs: list[Run], width: int, step: int, kind: Kind) -> None:
    tokens, outputs = sum(run.count for run in runs), sum(run.outputs for run in runs)
    whole = (Kind.TOKENS, Kind.HIDDEN, Kind.PLACED)
    text = kind in (Kind.HELLO, Kind.ERROR, Kind.FORK)
    rows = int(kind == Kind.FORK) if text else tokens if kind in whole else outputs
    width = 0 if text else 1 if kind == Kind.TOKENS else width
    payload_bytes = rows * (8 * width + 4) if kind == Kind.CANDIDATES else 4 * rows * max(width, kind == Kind.FORK)
    payload_bytes = 16 if kind == Kind.PLACED else payload_bytes
    frame = Frame(
        kind=kind,
        codec=9 if kind == Kind.HIDDEN else 0,
        step=step,
        rows=rows,
        width=width,
        runs=() if text else tuple(runs),
        payload=bytes(range(256)) * (payload_bytes // 256) + bytes(payload_bytes % 256),
    )
    assert unpack(pack(frame)) == frame


def test_positions_of_rows() -> None:
    assert row_positions(TOKENS.runs).tolist() == [256, 257, 9]
    assert row_positions((Run(0, 1, 7, 1), Run(1, 1, 3, 1))).tolist() == [7, 3]


@pytest.mark.parametrize("count", [0, 1, 7, 9, 2047, 2049, 12287, 12288, 12289, 50001])
def test_checksums_agree(count: int) -> None:
    data = np.random.default_rng(count).bytes(count)
    native = extension()
    assert native is not None
    assert native.crc32c(data) == crc32c(data)
    assert native.crc32c(data[count // 3 :], native.crc32c(data[: count // 3])) == crc32c(data)


def test_the_check_value_of_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283
