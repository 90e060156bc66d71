"""Our link against raw TCP, pyzmq, gloo and gRPC streams, between two processes on loopback.

Ping-pong at four sizes (microseconds of a round trip; `reference` is the faster raw TCP's, small ratios are good) and
throughput of 8 MB messages (GB/s; the ratio should be near 1). All take turns in one run; the figures are medians.
Each process keeps to cores of its own, as if on a machine of its own: where both share a core, a round trip measures
how the kernel switches between them.
"""

import argparse
import importlib
import multiprocessing
import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from tests.bench.links.end import End, Transport
from tests.bench.links.tcp_c import has_compiler
from tests.bench.row import Row, compared

TRANSPORTS = {
    "ours": "Ours",
    "tcp": "Tcp",
    "tcp_c": "TcpC",
    "zeromq": "ZeroMq",
    "gloo": "Gloo",
    "grpc_stream": "GrpcStream",
}
RAW, OURS, GRPC = ("TCP (Python)", "TCP (C)"), "ours", "gRPC stream"
SIZES = {64: "64 B", 1200: "1.2 KB", 8192: "8 KB", 65536: "64 KB"}
LARGE_BYTES, LARGE_COUNT = 8 << 20, 8


@dataclass(slots=True)
class _Pair:
    """This process's end of a transport, and the way to tell the other process what comes."""

    name: str
    end: End
    control: Connection
    round_trips_s: dict[int, list[float]] = field(default_factory=lambda: {size: [] for size in SIZES})
    bytes_per_s: list[float] = field(default_factory=list)

    def ping(self, size: int, count: int) -> None:
        self.control.send(("pong", size, count))
        self.round_trips_s[size].append(statistics.median(self.end.ping(size, count)))

    def push(self) -> None:
        self.control.send(("drain", LARGE_BYTES, LARGE_COUNT))
        self.bytes_per_s.append(self.end.push(LARGE_BYTES, LARGE_COUNT))


def run(args: Sequence[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench link")
    parser.add_argument("--rounds", type=int, default=15, help="how often each transport has its turn")
    parser.add_argument("--count", type=int, default=200, help="round trips of a turn")
    parser.add_argument("--only", choices=TRANSPORTS, action="append", help="may repeat; all")
    options = parser.parse_args(args)
    modules = [name for name in options.only or TRANSPORTS if name != "tcp_c" or has_compiler()]
    with ExitStack() as exits:
        _keep_to_half(0)
        pairs = [_open(module, exits) for module in modules]
        for turn in range(options.rounds + 1):
            for size in SIZES:
                for pair in pairs:
                    pair.ping(size, options.count)
            for pair in pairs:
                pair.push()
            if turn == 0:  # it only warmed up
                for pair in pairs:
                    pair.bytes_per_s.clear()
                    pair.round_trips_s = {size: [] for size in SIZES}
        return _rows(pairs)


def _open(module: str, exits: ExitStack) -> _Pair:
    context = multiprocessing.get_context("spawn")
    control, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(module, theirs), daemon=True)
    process.start()
    exits.callback(process.join, 10)
    exits.callback(process.kill)
    transport = _transport(module)
    return _Pair(transport.name, transport.connect(control.recv()), control)


def _serve(module: str, control: Connection) -> None:
    """The other process: it does what it is told, until it is killed."""
    _keep_to_half(1)
    end = _transport(module).listen(control.send)
    while True:
        loop, size, count = control.recv()
        getattr(end, loop)(size, count)


def _keep_to_half(which: int) -> None:
    """One half of the machine's cores for this process and its threads."""
    cores = range(os.cpu_count() or 1)
    if len(cores) > 1:
        half = len(cores) // 2
        os.sched_setaffinity(0, cores[:half] if which == 0 else cores[half:])


def _transport(module: str) -> Transport:
    transport: Transport = getattr(importlib.import_module(f"tests.bench.links.{module}"), TRANSPORTS[module])()
    return transport


def _rows(pairs: Sequence[_Pair]) -> list[Row]:
    latencies = [row for size in SIZES for row in _latencies(size, pairs)]
    speeds = {pair.name: statistics.median(pair.bytes_per_s) / 1e9 for pair in pairs}
    best = max((speeds[name] for name in RAW if name in speeds), default=None)
    return latencies + [_row(f"8 MB {name}", speed, "GB/s", best) for name, speed in speeds.items()]


def _latencies(size: int, pairs: Sequence[_Pair]) -> list[Row]:
    """Each transport against raw TCP, and gRPC against ours."""
    times_us = {pair.name: 1e6 * statistics.median(pair.round_trips_s[size]) for pair in pairs}
    best_us = min((times_us[name] for name in RAW if name in times_us), default=None)
    rows = [_row(f"ping-pong {SIZES[size]} {name}", time_us, "us", best_us) for name, time_us in times_us.items()]
    if {OURS, GRPC} <= times_us.keys():
        rows.append(compared(f"ping-pong {SIZES[size]} {GRPC} by {OURS}", times_us[GRPC], "us", times_us[OURS]))
    return rows


def _row(what: str, value: float, unit: str, reference: float | None) -> Row:
    return Row(what=what, value=value, unit=unit) if reference is None else compared(what, value, unit, reference)
