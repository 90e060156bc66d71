"""The ways that hidden rows can go from process to process, and a process that sends by one of them when told.

`python -m tests.transport.ways WAY IDENTITY ADDRESS` reads orders from standard input, one JSON a line.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.frame import Frame, Kind, Run
from hyperlane.transport.link import connect
from hyperlane.transport.shortcut import Landing, Shortcut
from hyperlane.worker.cuda_ring import CudaLanding, CudaShortcut
from hyperlane.worker.gpu import Gpu, RowRing, on_host
from tests.transport.memory_ring import MemoryLanding, MemoryShortcut

WAIT_S, WIDTH = 20.0, 64


@dataclass(frozen=True)
class Way:
    shortcut: Callable[[str], Shortcut]
    landing: Callable[[str], Landing]
    rows: Callable[[NDArray[Any]], Any] = lambda rows: rows  # as the sending end takes them
    kind: Kind = Kind.PLACED


class Tcp:
    """Both ends of the way by the socket: the frame's payload is the rows themselves."""

    name = "tcp"

    def place(self, rows: NDArray[Any], timeout_s: float) -> bytes | None:
        return rows.tobytes()

    def rows(self, frame: Frame) -> NDArray[Any]:
        return np.frombuffer(frame.payload, np.float16).reshape(frame.rows, frame.width)

    def close(self) -> None: ...


def on_gpu(rows: NDArray[Any], ring: list[RowRing] = []) -> Any:  # noqa: B006  # one for the process
    gpu = Gpu(0)
    if not ring:
        ring.append(RowRing(gpu, 2, WIDTH * 2))
    there = ring[0].take(len(rows), WIDTH, rows.dtype)
    gpu.stream.wait(there.read)
    gpu.stream.copy(there.address, rows.ctypes.data, rows.nbytes)
    there.there.record(gpu.stream)
    gpu.stream.synchronize()
    return there


WAYS = {
    "tcp": Way(lambda identity: Tcp(), lambda identity: Tcp(), kind=Kind.HIDDEN),
    "memory": Way(lambda i: MemoryShortcut(i, "float16"), lambda i: MemoryLanding(i, "float16")),
    "cuda": Way(lambda i: CudaShortcut(Gpu(0), i, "float16"), lambda i: CudaLanding(Gpu(0), i, 64), on_gpu),
}


def made_rows(step: int, rows: int) -> NDArray[np.float16]:
    return np.random.default_rng(step).normal(size=(rows, WIDTH)).astype(np.float16)


def frame_of(way: Way, step: int, rows: int, payload: bytes) -> Frame:
    return Frame(way.kind, step=step, rows=rows, width=WIDTH, runs=(Run(0, 0, 0, rows),), payload=payload)


def found(landing: Landing, frame: Frame) -> NDArray[Any]:
    return on_host(landing.rows(frame))


def main(name: str, identity: str, address: str) -> None:
    way = WAYS[name]
    shortcut, sender = way.shortcut(identity), connect([address], identity, timeout_s=WAIT_S)
    for line in sys.stdin:
        order = json.loads(line)
        payload = order.get("ticket") or shortcut.place(way.rows(made_rows(order["step"], order["rows"])), WAIT_S)
        if payload is not None:
            payload = bytes.fromhex(payload) if isinstance(payload, str) else payload
            sender.send(frame_of(way, order["step"], order["rows"], payload), WAIT_S)
        print(json.dumps({"placed": payload is not None}), flush=True)
    sender.flush(WAIT_S)
    shortcut.close()
    sender.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
