"""The CUDA kernels against the NumPy references, and their speed against a copy on the same GPU.

Needs an NVIDIA GPU, torch, and the extension built with CUDA. Figures are medians of device events.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hyperlane.transport.calibrate import calibrate
from hyperlane.transport.codec import Codec, make_codec
from hyperlane.transport.codec.tabled import TABLED_NAMES, TabledCodec
from hyperlane.transport.native import extension
from tests.bench.row import Row, compared

NAMES = ("int4_plain", "h4", "h8")  # int4 has a trellis since, and no kernel for it yet
CHECKED = ((1, 4096), (64, 576), (33, 200), (512, 4096))
TIMED = (1, 512, 8192)
WIDTH = 4096
COPY_BYTES = 1 << 30


def run(args: Sequence[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench gpu")
    parser.add_argument("--codec", choices=NAMES, action="append", help="may repeat; all")
    names = parser.parse_args(args).codec or NAMES
    module = extension()
    if module is None or not hasattr(module, "cuda") or not module.cuda.device_count():
        raise SystemExit("no GPU, or the extension was built without CUDA")
    copy_gb_s = _copy_gb_s()
    rows = [Row(what="device copy, read plus written", value=copy_gb_s, unit="GB/s")]
    for name in names:
        rows += [row for shape in CHECKED for row in _check(name, *shape)]
        rows += [row for count in TIMED for row in _time(name, count, copy_gb_s)]
    return rows


@dataclass
class Kernel:
    """One codec's kernels on buffers that are made once."""

    codec: Codec
    rows: int
    width: int

    def __post_init__(self) -> None:
        self.cuda = extension().cuda
        self.hidden = torch.empty(self.rows, self.width, dtype=torch.float16, device="cuda")
        self.decoded = torch.full_like(self.hidden, float("nan"))
        self.payload = torch.zeros(self.codec.max_bytes(self.rows, self.width), dtype=torch.uint8, device="cuda")
        self.positions = torch.arange(1, self.rows + 1, dtype=torch.int32, device="cuda")
        self.size = torch.zeros(1, dtype=torch.int64, device="cuda")
        if isinstance(self.codec, TabledCodec):
            native = self.codec._native
            self.row_bytes = native.row_bytes
            self.plan = torch.frombuffer(bytearray(native.plan()), dtype=torch.uint8).cuda()
            scratch_bytes = self.cuda.rotated_scratch_bytes(self.rows, self.row_bytes)
            self.scratch = torch.empty(scratch_bytes, dtype=torch.uint8, device="cuda")

    def encode(self) -> None:
        stream = torch.cuda.current_stream().cuda_stream
        if not isinstance(self.codec, TabledCodec):
            at = (self.hidden.data_ptr(), True, self.rows, self.width, self.payload.data_ptr(), stream)
            self.cuda.int4_plain_encode(*at)
            return
        self.cuda.rotated_encode(
            plan=self.plan.data_ptr(),
            row_bytes=self.row_bytes,
            rows=self.hidden.data_ptr(),
            half=True,
            row_count=self.rows,
            positions=self.positions.data_ptr(),
            scratch=self.scratch.data_ptr(),
            payload=self.payload.data_ptr(),
            payload_bytes=self.size.data_ptr(),
            stream=stream,
        )

    def decode(self) -> None:
        stream = torch.cuda.current_stream().cuda_stream
        if not isinstance(self.codec, TabledCodec):
            at = (self.payload.data_ptr(), self.rows, self.width, self.decoded.data_ptr(), True, stream)
            self.cuda.int4_plain_decode(*at)
            return
        self.cuda.rotated_decode(
            plan=self.plan.data_ptr(),
            width=self.width,
            row_bytes=self.row_bytes,
            payload=self.payload.data_ptr(),
            row_count=self.rows,
            scratch=self.scratch.data_ptr(),
            rows=self.decoded.data_ptr(),
            half=True,
            stream=stream,
        )


def _check(name: str, rows: int, width: int) -> list[Row]:
    """Bytes that differ from the reference's, and how far apart what they decode to is."""
    hidden = _hidden(max(rows, 64), width)
    codec = _codec(name, hidden)
    hidden = hidden[:rows].copy()
    if rows > 8:
        hidden[3, 5], hidden[4] = np.nan, 0
        hidden[5] *= 200
    kernel = Kernel(codec, rows, width)
    kernel.hidden.copy_(torch.from_numpy(hidden))
    positions = np.arange(1, rows + 1, dtype=np.uint32)
    expected = np.asarray(codec.encode(hidden, positions))
    kernel.encode()
    torch.cuda.synchronize()
    size = int(kernel.size.item()) if isinstance(codec, TabledCodec) else len(expected)
    found = kernel.payload[:size].cpu().numpy()
    same_size = size == len(expected)
    differing = float((found != expected).mean() * 100) if same_size else 100.0
    wanted, got = np.empty_like(hidden), np.empty_like(hidden)
    codec.decode(expected, positions, wanted)
    codec.decode(found, positions, got)
    kernel.payload[: len(expected)].copy_(torch.from_numpy(expected))
    kernel.decode()
    torch.cuda.synchronize()
    what = f"{name} {rows}x{width}"
    return [
        Row(what=f"{what} payload size differs", value=float(size - len(expected)), unit="B"),
        Row(what=f"{what} payload bytes that differ", value=differing, unit="%"),
        Row(
            what=f"{what} encode, distance of what it decodes to",
            value=_distance(got, wanted),
            unit="of the rows' norm",
        ),
        Row(
            what=f"{what} decode, distance",
            value=_distance(kernel.decoded.cpu().numpy(), wanted),
            unit="of the rows' norm",
        ),
    ]


def _distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest over rows of |found - wanted| / |wanted|; a NaN where the other has none counts as infinite."""
    finite = np.isfinite(wanted)
    if not np.array_equal(np.isnan(found), np.isnan(wanted)):
        return float("inf")
    wanted64 = np.where(finite, wanted, 0).astype(np.float64)
    found64 = np.where(finite, found, 0).astype(np.float64)
    norm = np.maximum(np.linalg.norm(wanted64, axis=1), 1e-30)
    return float((np.linalg.norm(found64 - wanted64, axis=1) / norm).max())


def _time(name: str, rows: int, copy_gb_s: float) -> list[Row]:
    hidden = _hidden(max(min(rows, 512), 64), WIDTH)
    kernel = Kernel(_codec(name, hidden), rows, WIDTH)
    kernel.hidden.copy_(torch.from_numpy(np.resize(hidden, (rows, WIDTH))))
    kernel.encode()
    torch.cuda.synchronize()
    coded = int(kernel.size.item()) or rows * (WIDTH // 2 + WIDTH // 64 * 2)
    moved_gb = (kernel.hidden.numel() * 2 + coded) / 1e9
    result = []
    for what, work in (("encode", kernel.encode), ("decode", kernel.decode)):
        seconds = _median_s(work)
        if rows == 1:
            result.append(Row(what=f"{name} 1x{WIDTH} {what}", value=seconds * 1e6, unit="us"))
        else:
            result.append(compared(f"{name} {rows}x{WIDTH} {what}", moved_gb / seconds, "GB/s", copy_gb_s))
    return result


def _codec(name: str, hidden: np.ndarray) -> Codec:
    return TabledCodec(name, calibrate(hidden[:256])) if name in TABLED_NAMES else make_codec(name)


def _hidden(rows: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    strength, mean = np.exp(rng.standard_normal(width) / 2), rng.standard_normal(width) / 4
    return (rng.standard_normal((rows, width)) * strength + mean).astype(np.float16)


def _copy_gb_s() -> float:
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / 1e9 / _median_s(lambda: target.copy_(source))


def _median_s(work: Callable[[], Any], turns: int = 30) -> float:
    for _ in range(3):
        work()
    times = []
    for _ in range(turns):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return sorted(times)[turns // 2]
