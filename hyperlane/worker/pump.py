"""The worker's hot loop: receive, decode, step, encode, send. One plain loop in one thread; no gRPC, no trio."""

import gc
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from threading import Event
from time import monotonic_ns
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hyperlane.control.types import LinkCounters, Wiring
from hyperlane.errors import HyperlaneError, OutOfMemoryError, TablesError, WorkerError, one_line
from hyperlane.timeline.record import StepRecord
from hyperlane.transport.codec import Codec
from hyperlane.transport.frame import (
    MAX_TEXT_BYTES,
    MISMATCH,
    OUT_OF_MEMORY,
    WANT_LOGITS,
    Frame,
    Kind,
    Run,
    row_positions,
)
from hyperlane.transport.link import Receiver, Sender
from hyperlane.transport.native import ask_for_short_slices
from hyperlane.transport.shortcut import Landing, Shortcut
from hyperlane.worker.codecs import EpochCodecs
from hyperlane.worker.device_path import DevicePath
from hyperlane.worker.gpu import DeviceRows
from hyperlane.worker.memory import step_out_of_memory
from hyperlane.worker.outgoing import candidates_payload
from hyperlane.worker.overlap import overlapped
from hyperlane.worker.parts import Session, StepResult
from hyperlane.worker.turn import Turn, open_turn
from hyperlane.worker.work import Work

POLL_S = 0.2
"""How often a waiting pump looks whether it should stop."""
RAW_ID = 0
TOKEN_TYPE = np.dtype("<i4")
KEPT_STEPS = 16384
"""Records of the latest steps: about 5 MB at most."""
GpuTime = Callable[[], tuple[int, int]] | None
"""When a step was on a GPU; None: the host's own times tell."""


@dataclass(slots=True)
class Pump:
    """Runs one epoch. A step that fails becomes an error frame, which travels on to the coordinator.

    overlap: decode the next step and send the last one in a second thread, where steps wait.
    device: decodes and encodes rows on the session's GPU.
    shortcut, landing: how rows go out, and come in, past the sockets; closed at the end is the former.
    """

    receiver: Receiver
    session: Session
    sender: Sender
    wiring: Wiring
    codecs: EpochCodecs
    worker: str
    dtype: DTypeLike
    overlap: bool = False
    device: DevicePath | None = None
    shortcut: Shortcut | None = None
    landing: Landing | None = None
    send_timeout_s: float = 60.0
    _dtype: "np.dtype[Any]" = field(init=False)
    _fp16_bytes: int = field(default=0)
    _turn: Turn | None = None
    _used: dict[str, None] = field(default_factory=dict)  # names of codecs, in order of first use
    _records: deque[tuple[StepRecord, GpuTime]] = field(default_factory=lambda: deque(maxlen=KEPT_STEPS))

    def __post_init__(self) -> None:
        self._dtype = np.dtype(self.dtype)

    def run(self, stop: Event) -> None:
        """Until `stop` is set; raises TransportError when the next of the chain is gone."""
        ask_for_short_slices()  # a frame that comes is not left behind what else runs here
        gc.freeze()  # what lives by now lives on: the collector need not walk it between two steps
        try:
            self._run(stop)
        finally:
            if self.shortcut is not None:
                self.shortcut.close()

    def _run(self, stop: Event) -> None:
        if self.overlap:
            overlapped(self, stop)
            return
        self._turn = open_turn(self.receiver, self.sender, self.session, self.wiring.epoch, KEPT_STEPS)
        while not stop.is_set():
            work = self.receive() if self._turn is None else self._take(self._turn)
            if work is not None:
                self.decode(work)
                self.compute(work)
                self.send(work)
                if self._turn is not None:
                    self._turn.prepare(work.frame)

    def counters(self) -> LinkCounters:
        turned = 0 if self._turn is None else self._turn.hidden_values
        used = [*self._used, *[self.codecs.decode.name] * (turned > 0)]
        return LinkCounters(
            target=self.wiring.identity.partition("#")[0],
            codec="+".join(dict.fromkeys(used)) or "candidates",
            frames=self.sender.frames,
            wire_bytes=self.sender.wire_bytes,
            fp16_bytes=self._fp16_bytes + 2 * turned,
        )

    def records(self) -> tuple[StepRecord, ...]:
        """The latest steps, in the order in which they were sent; for when none is under way."""
        found = [record if gpu_ns is None else _on_gpu(record, *gpu_ns()) for record, gpu_ns in self._records]
        if self._turn is not None:
            found = sorted([*found, *self._turn.records()], key=attrgetter("sent_ns"))[-KEPT_STEPS:]
        return tuple(found)

    # --- the stages of a step, in this order ----------------------------------------------------------------

    def ready(self) -> bool:
        """Whether another step waits."""
        return self.receiver.ready()

    def receive(self) -> Work | None:
        """The next step of this epoch; None where none came for a while, or a frame that is nobody's any more."""
        try:
            frame = self.receiver.recv(POLL_S)
        except TimeoutError:
            return None
        if frame.epoch != self.wiring.epoch:
            return None
        return Work(frame, self.receiver.arrived_ns, monotonic_ns())

    def _take(self, turn: Turn) -> Work | None:
        """As `receive`; but a plain step is done when this comes back."""
        try:
            taken = turn.take(POLL_S)
        except TimeoutError:
            return None
        if isinstance(taken, Work):
            return taken if taken.frame.epoch == self.wiring.epoch else None
        try:
            taken.run()
        except HyperlaneError as error:
            work = turn.give_up()
            self._fail(work, error)
            return work
        turn.send(self.send_timeout_s)
        return None

    def decode(self, work: Work) -> None:
        if work.frame.kind not in (Kind.ERROR, Kind.FORK):
            try:
                work.rows = self._rows(work.frame)
            except HyperlaneError as error:
                self._fail(work, error)
            except MemoryError as error:
                self._fail(work, step_out_of_memory(work.frame.rows, error))
        work.decoded_ns = monotonic_ns()

    def compute(self, work: Work) -> None:
        work.started_ns = monotonic_ns()
        try:
            frame = work.frame
            if work.rows is not None:
                work.result = self.session.run(frame.runs, work.rows, bool(frame.flags & WANT_LOGITS))
            elif frame.kind == Kind.FORK:
                source, target = np.frombuffer(frame.payload, "<u2").tolist()
                self.session.copy(source, target, frame.rows)
        except HyperlaneError as error:
            self._fail(work, error)
        work.computed_ns = monotonic_ns()

    def send(self, work: Work) -> None:
        """Encode and send."""
        work.encoding_ns = monotonic_ns()
        frame, runs, result = work.frame, work.frame.runs, work.result
        rows, prefill = 0, is_prefill(runs)
        if result is not None:
            rows = len(work.rows) if work.rows is not None else 0
            work.gpu_ns, work.result, work.rows = result.gpu_ns, None, None
            frame = work.frame = self._result_frame(frame, result, prefill)
        work.encoded_ns = monotonic_ns()
        self.sender.send(frame, timeout_s=self.send_timeout_s)
        if rows or frame.kind == Kind.FORK:
            self._records.append((work.record(rows, prefill, monotonic_ns()), work.gpu_ns))

    def _fail(self, work: Work, error: HyperlaneError) -> None:
        begin = "worker "
        if isinstance(error, TablesError):
            begin = MISMATCH
        elif isinstance(error, OutOfMemoryError):
            begin = OUT_OF_MEMORY
        begin += self.worker
        work.frame, work.rows = _error_frame(work.frame, f"{begin}: {one_line(error)}"), None

    def _rows(self, frame: Frame) -> NDArray[np.int32] | NDArray[np.floating] | DeviceRows:
        """Token ids [R] or hidden rows [R, D] of a frame."""
        if frame.kind == Kind.TOKENS:
            return np.frombuffer(frame.payload, TOKEN_TYPE)
        if frame.kind == Kind.PLACED and self.landing is not None:
            placed: NDArray[np.floating] | DeviceRows = self.landing.rows(frame)
            return placed
        if frame.kind != Kind.HIDDEN:
            raise WorkerError(f"a frame of kind {frame.kind} came where tokens or hidden states belong")
        if self.device is not None:
            rows = self.device.decode(frame)
            if rows is not None:
                return rows
        shape, dtype = (frame.rows, frame.width), self._dtype
        if frame.codec == RAW_ID and len(frame.payload) == frame.rows * frame.width * dtype.itemsize:
            return np.ndarray(shape, dtype, frame.payload)
        hidden_RD = np.empty(shape, dtype)
        self.codecs.incoming.decode(frame.codec, frame.payload, row_positions(frame.runs), hidden_RD)
        return hidden_RD

    def _result_frame(self, frame: Frame, result: StepResult, prefill: bool) -> Frame:
        if result.hidden_RD is not None:
            rows, width = result.hidden_RD.shape
            self._fp16_bytes += rows * width * 2
            placed = None if self.shortcut is None else self.shortcut.place(result.hidden_RD, self.send_timeout_s)
            if self.shortcut is not None and placed is not None:
                self._used[self.shortcut.name] = None
                return _answer(frame, Kind.PLACED, 0, rows, width, memoryview(placed))
            codec = self.codecs.prefill if prefill else self.codecs.decode
            self._used[codec.name] = None
            payload = self._encoded(result.hidden_RD, codec, frame)
            return _answer(frame, Kind.HIDDEN, codec.id, rows, width, payload)
        if result.logits_NV is not None:
            rows, width = result.logits_NV.shape
            return _answer(frame, Kind.LOGITS, 0, rows, width, np.ascontiguousarray(result.logits_NV, "<f4").data)
        assert result.ids_NK is not None
        rows, width = result.ids_NK.shape
        return _answer(frame, Kind.CANDIDATES, 0, rows, width, candidates_payload(result))

    def _encoded(self, hidden_RD: NDArray[np.floating] | DeviceRows, codec: Codec, frame: Frame) -> memoryview:
        if isinstance(hidden_RD, DeviceRows):
            assert self.device is not None
            return self.device.encode(hidden_RD, codec, frame)
        if codec.id == RAW_ID:
            return np.ascontiguousarray(hidden_RD).data.cast("B")
        return codec.encode(hidden_RD, row_positions(frame.runs)).data


def is_prefill(runs: tuple[Run, ...]) -> bool:
    """Whether a step takes in a prompt; drafts want all their rows."""
    return any(run.outputs < run.count for run in runs)


def _on_gpu(record: StepRecord, started_ns: int, computed_ns: int) -> StepRecord:
    """The host only queues a step: it takes as long as the GPU says, and what follows ends no sooner."""
    later = {name: max(getattr(record, name), computed_ns) for name in ("encoding_ns", "encoded_ns", "sent_ns")}
    started_ns = max(started_ns, record.decoded_ns)
    return record._replace(started_ns=started_ns, computed_ns=max(started_ns, computed_ns), **later)


def _answer(frame: Frame, kind: Kind, codec: int, rows: int, width: int, payload: bytes | memoryview) -> Frame:
    return Frame(kind, codec, frame.flags, frame.epoch, frame.lane, frame.step, rows, width, frame.runs, payload)


def _error_frame(frame: Frame, message: str) -> Frame:
    text = message.encode()[:MAX_TEXT_BYTES]
    return frame._replace(kind=Kind.ERROR, codec=0, rows=0, width=0, runs=(), payload=text)
