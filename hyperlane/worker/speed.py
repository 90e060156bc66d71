"""How long steps take here: a probe's graph is loaded with made-up weights and run as a shard is run.

Results are kept in the store by what decides them: the probe, the hardware, the versions, a CPU quota.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hyperlane import __version__
from hyperlane.artifacts import Blob
from hyperlane.control.types import CodecTime, ComputeSpeed, Probe, ShardSpec, StepCase
from hyperlane.model.store import LayerStore
from hyperlane.transport.frame import Run
from hyperlane.worker.measure import codec_time
from hyperlane.worker.parts import Session
from hyperlane.worker.profile import cpu_share

PASSES = 3
CASE_S = 0.035  # how long a case is timed in each pass at least
FEWEST, MOST = 1, 40  # runs of a case in a pass
METHOD = 2  # of this procedure: what another one found is not taken from the store
FILLING = b"\x3c" * (1 << 16)  # as FP32 0.011, as FP16 1.06: no denormals, no infinities


class _Timed(Session, Protocol):
    def assume(self, past: int) -> None: ...

    def wait(self) -> None: ...


def measure_compute(
    probe: Probe,
    open_session: Callable[[Path, ShardSpec], Session],
    store: LayerStore,
    *,
    device: str,
    threads: int,
) -> ComputeSpeed:
    """WorkerError if the graph cannot be loaded or run."""
    share = cpu_share(threads)
    path = store.root / "benchmarks" / f"{_key(probe, device, threads, share)}.json"
    known = _read(path, len(probe.cases))
    if known is None:
        known = _measured(probe, open_session, device, threads, share)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(known)))
    return replace(known, load=os.getloadavg()[0] / (os.cpu_count() or 1))


def _measured(
    probe: Probe, open_session: Callable[[Path, ShardSpec], Session], device: str, threads: int, share: float
) -> ComputeSpeed:
    with tempfile.TemporaryDirectory(prefix="hyperlane-probe-") as folder:
        graph, one_thread = _written(probe, Path(folder)), device == "cpu" and threads == 1
        with ExitStack() as exits:
            sessions = []
            for _ in range(max(1, probe.at_once)):
                sessions.append(cast(_Timed, open_session(graph, _spec(probe))))
                exits.callback(sessions[-1].close)
            passes = [[_crowded_s(sessions, probe, case, one_thread) for case in probe.cases] for _ in range(PASSES)]
            seconds = tuple(map(median, zip(*passes, strict=True)))  # a moment in which the machine is slow is in one
    return ComputeSpeed(
        seconds=seconds,
        codecs=tuple(
            codec_time(codec, rows, probe.width, probe.dtype) for codec in probe.codecs for rows in probe.codec_rows
        ),
        share=share,
        machine=_machine(),
        cores=os.cpu_count() or 1,
        threads=threads,
        load=0.0,
    )


def _written(probe: Probe, folder: Path) -> Path:
    """The graph and its weight files; each file's content is apart, so that caches cannot share it."""
    graph = folder / "probe.onnx"
    graph.write_bytes(probe.graph)
    for blob in probe.weights:
        with (folder / blob.sha256).open("wb") as file:
            for start in range(0, blob.bytes, len(FILLING)):
                file.write(FILLING[: blob.bytes - start])
    return graph


def _spec(probe: Probe) -> ShardSpec:
    return ShardSpec(
        key="probe",
        graph=Blob(sha256=hashlib.sha256(probe.graph).hexdigest(), bytes=len(probe.graph)),
        weights=probe.weights,
        start=1,
        stop=2,
        first=False,
        last=probe.last,
        slots=max(case.rows for case in probe.cases if case.phase == "decode"),
        context=probe.context,
        dtype=probe.dtype,
    )


def _crowded_s(sessions: Sequence[_Timed], probe: Probe, case: StepCase, one_thread: bool) -> float:
    """The time of the first session's step while the others run steps too."""
    stop, ready = threading.Event(), threading.Barrier(len(sessions))

    def crowd(session: _Timed) -> None:
        ready.wait()
        runs, rows_RD = _step(probe, case)
        while not stop.is_set():
            session.assume(case.past)
            session.run(runs, rows_RD, False)

    with ThreadPoolExecutor(max(1, len(sessions) - 1)) as threads:
        others = [threads.submit(crowd, session) for session in sessions[1:]]
        ready.wait()
        try:
            seconds = _case_s(sessions[0], probe, case, one_thread)
        finally:
            stop.set()
    for other in others:
        other.result()
    return seconds


def _case_s(session: _Timed, probe: Probe, case: StepCase, one_thread: bool) -> float:
    """The median of several runs. One thread is timed by its own clock: a quota's pauses do not count."""
    runs, rows_RD = _step(probe, case)
    clock = time.thread_time if one_thread else time.perf_counter
    times: list[float] = []
    until_s = time.perf_counter() + CASE_S
    for turn in range(MOST + 1):
        session.assume(case.past)
        begin_s = clock()
        session.run(runs, rows_RD, False)
        session.wait()
        if turn:  # the first one prepares the call
            times.append(clock() - begin_s)
        if len(times) >= FEWEST and time.perf_counter() > until_s:
            break
    return sorted(times)[len(times) // 2]


def _step(probe: Probe, case: StepCase) -> tuple[list[Run], NDArray[np.floating]]:
    if case.phase == "decode":
        runs = [Run(slot=slot, outputs=1, position=case.past, count=1) for slot in range(case.rows)]
    else:
        runs = [Run(slot=0, outputs=1, position=case.past, count=case.rows)]
    return runs, np.full((case.rows, probe.width), 0.5, probe.dtype)


def _key(probe: Probe, device: str, threads: int, share: float) -> str:
    versions = [__version__, platform.machine(), _processor()]
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    probed = asdict(replace(probe, graph=b"")), hashlib.sha256(probe.graph).hexdigest()
    text = json.dumps([METHOD, versions, device, threads, round(share, 3), os.cpu_count(), probed], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path, cases: int) -> ComputeSpeed | None:
    """An earlier result; None where there is none, or what there is cannot be read."""
    try:
        found = json.loads(path.read_text())
        codecs = tuple(CodecTime(**time) for time in found.pop("codecs"))
        speed = ComputeSpeed(**{**found, "seconds": tuple(found["seconds"])}, codecs=codecs)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return speed if len(speed.seconds) == cases else None


def _machine() -> str:
    """The same for all processes of a machine since it started, in whatever container."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


def _processor() -> str:
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return platform.processor()
