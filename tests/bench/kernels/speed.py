"""How fast the kernels are: by a copy on the same GPU for many rows, in microseconds for one."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hyperlane.transport.codec.device import cuda, device_codec
from hyperlane.transport.codec.tabled import TABLED_NAMES
from tests.bench.kernels.rows import codec_for, plain_rows
from tests.bench.row import Row, compared

WIDTH = 4096
TIMED_ROWS = (512, 8192, 32768)
COPY_BYTES = 1 << 30
CACHE_BYTES = 256 << 20  # a set of buffers is used again after as many bytes
TURNS = 9


def copy_gb_s() -> float:
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / 1e9 / _copy_s(lambda: target.copy_(source))


def time_codec(name: str, ceiling_gb_s: float) -> list[Row]:
    result = _round_trip(name)
    for rows in TIMED_ROWS:
        result += _time(name, rows, ceiling_gb_s)
    return result


class _Buffers:
    """Rows, their payload and room for what it decodes to."""

    def __init__(self, name: str, rows: int, seed: int) -> None:
        hidden = plain_rows(seed, 512, WIDTH).astype(np.float16)
        self.kernels = device_codec(codec_for(name, hidden[:256]), WIDTH, rows)
        spread = torch.from_numpy(hidden).cuda().repeat(-(-rows // 512), 1)[:rows]
        self.rows, self.hidden = rows, spread.roll(seed, 0).contiguous()
        self.decoded = torch.empty_like(self.hidden)
        self.payload = torch.zeros(self.kernels.max_bytes(rows) + 256, dtype=torch.uint8, device="cuda")
        self.positions = torch.ones(rows, dtype=torch.int32, device="cuda")
        self.size = torch.zeros(1, dtype=torch.int64, device="cuda")

    def encode(self) -> None:
        self.kernels.encode(
            self.hidden.data_ptr(),
            True,
            self.rows,
            self.positions.data_ptr(),
            self.payload.data_ptr(),
            self.size.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )

    def decode(self) -> None:
        stream = torch.cuda.current_stream().cuda_stream
        self.kernels.decode(self.payload.data_ptr(), self.rows, self.decoded.data_ptr(), True, stream)


def _time(name: str, rows: int, ceiling_gb_s: float) -> list[Row]:
    sets = max(2, CACHE_BYTES // (rows * WIDTH * 2))
    buffers = [_Buffers(name, rows, seed) for seed in range(min(sets, 4))]
    for each in buffers:
        each.encode()
    torch.cuda.synchronize()
    coded = int(buffers[0].size.item()) or buffers[0].kernels.usual_bytes(rows)
    moved_gb = (rows * WIDTH * 2 + coded) / 1e9
    result = []
    for what in ("encode", "decode"):
        seconds = _graph_s([getattr(buffers[i % len(buffers)], what) for i in range(8)])
        result.append(compared(f"{name} {rows}x{WIDTH} {what}", moved_gb / seconds, "GB/s", ceiling_gb_s))
    return result


def _round_trip(name: str) -> list[Row]:
    """One row: encoded into pinned memory, and decoded from there; then each kernel alone."""
    module = cuda()
    assert module is not None
    buffers = _Buffers(name, 1, 0)
    path = module.HostPath(buffers.kernels, 64)
    positions = np.ones(1, np.uint32)
    times_us = []
    for _ in range(400):
        start_ns = time.perf_counter_ns()
        size = path.encode(buffers.hidden.data_ptr(), True, 1, positions)
        middle_ns = time.perf_counter_ns()
        path.decode(size, 1, buffers.decoded.data_ptr(), True)
        times_us.append((middle_ns - start_ns, time.perf_counter_ns() - middle_ns))
    encode_us, decode_us = (float(np.median(column[50:])) / 1e3 for column in np.array(times_us).T)
    result = [
        Row(what=f"{name} 1x{WIDTH} to the host and back", value=encode_us + decode_us, unit="us"),
        Row(what=f"{name} 1x{WIDTH} to the host", value=encode_us, unit="us"),
        Row(what=f"{name} 1x{WIDTH} from the host", value=decode_us, unit="us"),
    ]
    for what in ("encode", "decode"):
        seconds = _graph_s([getattr(buffers, what)] * 20)
        result.append(Row(what=f"{name} 1x{WIDTH} {what}, the kernel", value=seconds * 1e6, unit="us"))
    if name in TABLED_NAMES:
        error = float((buffers.decoded - buffers.hidden).float().norm() / buffers.hidden.float().norm())
        result.append(Row(what=f"{name} 1x{WIDTH} error", value=100 * error**2, unit="% squared"))
    return result


def _graph_s(works: list[Callable[[], Any]]) -> float:
    """Seconds of one of the works, replayed one behind another; the median of several replays."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for work in works:
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for work in works:
            work()
    times = []
    for _ in range(TURNS + 1):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 1e3 / len(works))
    return sorted(times[1:])[TURNS // 2]


def _copy_s(copy: Callable[[], Any]) -> float:
    times = []
    for _ in range(2 * TURNS):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        copy()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return sorted(times)[TURNS]
