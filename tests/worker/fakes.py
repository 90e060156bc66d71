"""Parts of a worker without ONNX and sockets: each records what was done with it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.artifacts import Blob
from hyperlane.control.client import ControlClient
from hyperlane.control.types import CodecTime, LinkCounters, LinkSpeed, ShardSpec, Wiring
from hyperlane.errors import TransportError, WorkerError
from hyperlane.model.store import LayerStore
from hyperlane.timeline.record import StepRecord
from hyperlane.transport.frame import Run
from hyperlane.worker.codecs import EpochCodecs
from hyperlane.worker.decode_call import DecodeCall
from hyperlane.worker.parts import Parts, StepResult
from hyperlane.worker.profile import Memory
from hyperlane.worker.worker import About, Worker

WIDTH = 2


@dataclass(slots=True)
class FakeSession:
    """Adds `stop - start` to every value; the last shard returns row sums as its candidates."""

    spec: ShardSpec
    closed: bool = False
    copies: list[tuple[int, int, int]] = field(default_factory=list)

    def close(self) -> None:
        self.closed = True

    def copy(self, source: int, target: int, count: int) -> None:
        self.copies.append((source, target, count))

    def run(self, runs: Sequence[Any], rows: NDArray[Any], want_logits: bool) -> StepResult:
        if runs[0].position >= self.spec.context:
            raise WorkerError(f"position {runs[0].position} is beyond the context of {self.spec.context}")
        hidden_RD = np.repeat(rows[:, None], WIDTH, 1) if self.spec.first else rows
        hidden_RD = hidden_RD.astype(np.float32) + (self.spec.stop - self.spec.start)
        if not self.spec.last:
            return StepResult(hidden_RD=hidden_RD)
        sums_N = hidden_RD.sum(1)
        if want_logits:
            return StepResult(logits_NV=hidden_RD)
        return StepResult(ids_NK=sums_N[:, None].astype(np.int64), logits_NK=sums_N[:, None], logsumexp_N=sums_N)

    def decode_call(self, rows: int) -> DecodeCall:
        """Slots hold whatever a step asks for."""
        given = np.zeros(rows, np.int64) if self.spec.first else np.zeros((rows, WIDTH), np.float32)
        positions, slots = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        logits_NK, sums_N = np.zeros((rows, 1), np.float32), np.zeros(rows, np.float32)
        outputs: tuple[NDArray[Any], ...] = (np.zeros((rows, 1), np.int64), logits_NK, sums_N)
        if not self.spec.last:
            outputs = (np.zeros((rows, WIDTH), np.float32),)

        def run() -> None:
            runs = [
                Run(slot, 1, position, 1) for slot, position in zip(slots.tolist(), positions.tolist(), strict=True)
            ]
            result = self.run(runs, given, False)
            found: list[Any] = [result.hidden_RD, result.ids_NK, result.logits_NK, result.logsumexp_N]
            for array, values in zip(outputs, [array for array in found if array is not None], strict=True):
                array[:] = values

        return DecodeCall(
            run=run,
            rows=given,
            positions=positions,
            slots=slots,
            outputs=outputs,
            live=np.full(self.spec.slots, self.spec.context, np.int64),
            context=self.spec.context,
        )


@dataclass(slots=True)
class FakeLink:
    address: str
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass(slots=True)
class FakePump:
    """Runs until it is stopped, or fails with `failure` as soon as it is told to."""

    fail: threading.Event = field(default_factory=threading.Event)
    stopped: bool = False
    failure: Exception = field(default_factory=lambda: TransportError("the next worker is gone"))

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(0.01):
            if self.fail.is_set():
                raise self.failure
        self.stopped = True

    def counters(self) -> LinkCounters:
        return LinkCounters(target="next", codec="raw", frames=3, wire_bytes=30, fp16_bytes=20)

    def records(self) -> tuple[StepRecord, ...]:
        return tuple(StepRecord(step, 0, 1, False, *range(8)) for step in range(5))


@dataclass(slots=True)
class Workshop:
    """Makes workers, and keeps what they were made of."""

    root: Path
    sessions: list[FakeSession] = field(default_factory=list)
    links: list[FakeLink] = field(default_factory=list)
    pumps: list[FakePump] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    unreachable: bool = False

    def worker(self, name: str = "w", **changes: Any) -> Worker:
        plain: dict[str, Any] = {
            "identity": f"{name}#01",
            "cluster": "c",
            "device": "cpu",
            "operators": 1,
            "hosts": ("127.0.0.1",),
            "control_port": 1,
            "data_port": 2,
        }
        about = About(name=name, **{**plain, **changes})
        memory = Memory(total_bytes=1000, free_bytes=600, used_bytes=400)
        store = LayerStore(self.root / name)
        return Worker(
            about,
            store,
            self._parts(),
            memory=lambda: memory,
            rejected=lambda: ("bad magic",),
            received_bytes=lambda: 70,
        )

    def close(self) -> None:
        for thread in self.threads:
            thread.join(10)

    def _parts(self) -> Parts:
        return Parts(
            open_session=self._open_session,
            connect=self._connect,
            open_pump=self._open_pump,
            measure_link=_measure_link,
            open_relay=ControlClient,
            spawn=self._spawn,
        )

    def _open_session(self, graph: Path, spec: ShardSpec) -> FakeSession:
        assert graph.is_file()
        self.sessions.append(FakeSession(spec))
        return self.sessions[-1]

    def _connect(self, wiring: Wiring) -> FakeLink:
        if self.unreachable:
            raise TransportError(f"cannot reach {wiring.identity}")
        self.links.append(FakeLink(wiring.data_addresses[0]))
        return self.links[-1]

    def _open_pump(self, session: Any, link: Any, wiring: Wiring, codecs: EpochCodecs, spec: ShardSpec) -> FakePump:
        self.pumps.append(FakePump())
        return self.pumps[-1]

    def _spawn(self, run: Callable[[], None]) -> None:
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()


def _measure_link(wiring: Wiring, codecs: Sequence[str], rows: Sequence[int], width: int, dtype: str) -> LinkSpeed:
    times = [
        CodecTime(codec=codec, rows=count, encode_s=1e-6, decode_s=2e-6, payload_bytes=count * width)
        for codec in codecs
        for count in rows
    ]
    return LinkSpeed(bytes_per_s=1e9, latency_s=1e-5, times=tuple(times))


def shard_spec(store: LayerStore, **changes: Any) -> ShardSpec:
    """A shard whose files `store` holds."""
    return make_spec(store.put(b"graph"), (store.put(b"weights" * 1000),), **changes)


def make_spec(graph: Blob, weights: tuple[Blob, ...], **changes: Any) -> ShardSpec:
    plain: dict[str, Any] = {
        "key": "deployment",
        "start": 0,
        "stop": 4,
        "first": True,
        "last": True,
        "slots": 2,
        "context": 64,
        "dtype": "float32",
    }
    return ShardSpec(graph=graph, weights=weights, **{**plain, **changes})


def wiring(epoch: int = 1, **changes: Any) -> Wiring:
    plain: dict[str, Any] = {
        "identity": "next#02",
        "data_addresses": ("127.0.0.1:9",),
        "control_address": None,
        "codec": "raw",
    }
    return Wiring(epoch=epoch, **{**plain, **changes})
