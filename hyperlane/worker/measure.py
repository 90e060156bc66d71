"""What codec=auto must know of a worker: how fast its link to the next one is, and how fast its codecs are."""

import functools
import socket
import time
from collections.abc import Sequence
from contextlib import closing

import numpy as np

from hyperlane.control.client import ControlClient
from hyperlane.control.types import CodecTime, LinkSpeed, Wiring
from hyperlane.errors import TransportError
from hyperlane.transport.calibrate import calibrate
from hyperlane.transport.codec import TABLED_NAMES, Codec, make_codec
from hyperlane.transport.frame import Frame, Kind, Run
from hyperlane.transport.link import Sender, connect

CONNECT_TIMEOUT_S = 5.0
ARRIVAL_TIMEOUT_S = 30.0
FIRST_BYTES, MOST_BYTES = 16 << 10, 64 << 20  # the first take an eighth of a second at 1 Mbit/s
LARGEST_FRAME_BYTES = 1 << 20
LONG_ENOUGH_S = 0.1
PROBE_WIDTH = 256
CODEC_S = 0.02  # how long one codec is timed


def measure_link(wiring: Wiring, codecs: Sequence[str], rows: Sequence[int], width: int, dtype: str) -> LinkSpeed:
    """Time `codecs` on frames of `rows`, and the link; TransportError where its frames do not arrive.

    The probe's frames are of epoch 0, which the pump at the other end drops.
    """
    times = tuple(codec_time(codec, count, width, dtype) for codec in codecs for count in rows)
    if wiring.control_address is None:
        return LinkSpeed(bytes_per_s=0.0, latency_s=0.0, times=times)
    with closing(connect(wiring.data_addresses, wiring.identity, timeout_s=CONNECT_TIMEOUT_S)) as sender:
        with ControlClient(wiring.control_address, "next in the chain") as following:
            bytes_per_s = _bytes_per_s(sender, following)
        return LinkSpeed(bytes_per_s=bytes_per_s, latency_s=_latency_s(sender.address), times=times)


def _bytes_per_s(sender: Sender, following: ControlClient) -> float:
    """Ever more bytes, until they take long enough to be timed by when the next worker counts them."""
    probe_bytes = FIRST_BYTES
    while True:
        elapsed_s = _transfer_s(sender, following, probe_bytes)
        if elapsed_s >= LONG_ENOUGH_S or probe_bytes >= MOST_BYTES:
            return probe_bytes / elapsed_s
        probe_bytes *= 2


def _transfer_s(sender: Sender, following: ControlClient, probe_bytes: int) -> float:
    frame_bytes = min(probe_bytes, LARGEST_FRAME_BYTES)
    probe = _probe(frame_bytes // (4 * PROBE_WIDTH))
    due_bytes = following.stats().result().received_bytes + probe_bytes  # headers come on top
    begin_s = time.perf_counter()
    for _ in range(probe_bytes // frame_bytes):
        sender.send(probe, timeout_s=ARRIVAL_TIMEOUT_S)
    while following.stats().result().received_bytes < due_bytes:
        if time.perf_counter() - begin_s > ARRIVAL_TIMEOUT_S:
            raise TransportError(f"{probe_bytes} bytes to {sender.address} did not arrive in {ARRIVAL_TIMEOUT_S:g} s")
    return time.perf_counter() - begin_s


def _latency_s(address: str) -> float:
    """Half of the quickest of three TCP handshakes."""
    host, _, port = address.rpartition(":")
    handshakes_s = []
    for _ in range(3):
        begin_s = time.perf_counter()
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
        handshakes_s.append(time.perf_counter() - begin_s)
    return min(handshakes_s) / 2


@functools.cache
def codec_time(name: str, rows: int, width: int, dtype: str) -> CodecTime:
    """The quickest of several runs. What the rows hold hardly matters to a codec's speed."""
    hidden_RD = np.random.default_rng(0).normal(size=(rows, width)).astype(dtype)
    positions_R = np.arange(1, rows + 1, dtype=np.uint32)
    codec: Codec = make_codec(name, calibrate(hidden_RD) if name in TABLED_NAMES else None)
    out_RD = np.empty_like(hidden_RD)
    encodes_s: list[float] = []
    decodes_s: list[float] = []
    until_s = time.perf_counter() + CODEC_S
    while not encodes_s or time.perf_counter() < until_s:
        begin_s = time.perf_counter()
        payload = codec.encode(hidden_RD, positions_R)
        middle_s = time.perf_counter()
        codec.decode(payload, positions_R, out_RD)
        encodes_s.append(middle_s - begin_s)
        decodes_s.append(time.perf_counter() - middle_s)
    return CodecTime(
        codec=name, rows=rows, encode_s=min(encodes_s), decode_s=min(decodes_s), payload_bytes=len(payload)
    )


def _probe(rows: int) -> Frame:
    payload = bytes(4 * rows * PROBE_WIDTH)
    return Frame(kind=Kind.HIDDEN, rows=rows, width=PROBE_WIDTH, runs=(Run(0, 0, 0, rows),), payload=payload)
