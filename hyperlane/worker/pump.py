"""The worker's hot loop: receive, decode, step, encode, send. One plain loop in one thread; no gRPC, no trio."""

from dataclasses import dataclass, field
from threading import Event

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hyperlane.control.types import LinkCounters, Wiring
from hyperlane.errors import HyperlaneError, TablesError, WorkerError, one_line
from hyperlane.transport.frame import MAX_TEXT_BYTES, MISMATCH, WANT_LOGITS, Frame, Kind, row_positions
from hyperlane.transport.link import Receiver, Sender
from hyperlane.worker.codecs import EpochCodecs
from hyperlane.worker.parts import Session, StepResult

POLL_S = 0.2
"""How often a waiting pump looks whether it should stop."""


@dataclass(slots=True)
class Pump:
    """Runs one epoch. A step that fails becomes an error frame, which travels on to the coordinator."""

    receiver: Receiver
    session: Session
    sender: Sender
    wiring: Wiring
    codecs: EpochCodecs
    worker: str
    dtype: DTypeLike
    send_timeout_s: float = 60.0
    _fp16_bytes: int = field(default=0)
    _used: dict[str, None] = field(default_factory=dict)  # names of codecs, in order of first use

    def run(self, stop: Event) -> None:
        """Until `stop` is set; raises TransportError when the next of the chain is gone."""
        while not stop.is_set():
            try:
                frame = self.receiver.recv(POLL_S)
            except TimeoutError:
                continue
            if frame.epoch == self.wiring.epoch:  # frames of another epoch are nobody's any more
                self.sender.send(self._answer(frame), timeout_s=self.send_timeout_s)

    def counters(self) -> LinkCounters:
        return LinkCounters(
            target=self.wiring.identity.partition("#")[0],
            codec="+".join(self._used) or "candidates",
            frames=self.sender.frames,
            wire_bytes=self.sender.wire_bytes,
            fp16_bytes=self._fp16_bytes,
        )

    def _answer(self, frame: Frame) -> Frame:
        if frame.kind == Kind.ERROR:
            return frame
        try:
            if frame.kind == Kind.FORK:
                source, target = np.frombuffer(frame.payload, "<u2").tolist()
                self.session.copy(source, target, frame.rows)
                return frame
            rows = self._rows(frame)
            result = self.session.run(frame.runs, rows, bool(frame.flags & WANT_LOGITS))
            return self._result_frame(frame, result)
        except TablesError as error:
            return _error_frame(frame, f"{MISMATCH}{self.worker}: {one_line(error)}")
        except HyperlaneError as error:
            return _error_frame(frame, f"worker {self.worker}: {one_line(error)}")

    def _rows(self, frame: Frame) -> NDArray[np.int64] | NDArray[np.floating]:
        """Token ids [R] or hidden rows [R, D] of a frame."""
        if frame.kind == Kind.TOKENS:
            return np.frombuffer(frame.payload, np.dtype("<i4")).astype(np.int64)
        if frame.kind != Kind.HIDDEN:
            raise WorkerError(f"a frame of kind {frame.kind} came where tokens or hidden states belong")
        hidden_RD = np.empty((frame.rows, frame.width), self.dtype)
        self.codecs.incoming.decode(frame.codec, frame.payload, row_positions(frame.runs), hidden_RD)
        return hidden_RD

    def _result_frame(self, frame: Frame, result: StepResult) -> Frame:
        if result.hidden_RD is not None:
            rows, width = result.hidden_RD.shape
            is_prefill = any(run.outputs < run.count for run in frame.runs)  # drafts want all their rows
            codec = self.codecs.prefill if is_prefill else self.codecs.decode
            encoded = codec.encode(result.hidden_RD, row_positions(frame.runs))
            self._fp16_bytes += rows * width * 2
            self._used[codec.name] = None
            return frame._replace(kind=Kind.HIDDEN, codec=codec.id, rows=rows, width=width, payload=encoded.data)
        if result.logits_NV is not None:
            rows, width = result.logits_NV.shape
            whole = np.ascontiguousarray(result.logits_NV, "<f4")
            return frame._replace(kind=Kind.LOGITS, codec=0, rows=rows, width=width, payload=whole.data)
        assert result.ids_NK is not None
        assert result.logits_NK is not None
        assert result.logsumexp_N is not None
        rows, width = result.ids_NK.shape
        parts = (result.ids_NK.astype("<i4"), result.logits_NK.astype("<f4"), result.logsumexp_N.astype("<f4"))
        joined = b"".join(part.tobytes() for part in parts)
        return frame._replace(kind=Kind.CANDIDATES, codec=0, rows=rows, width=width, payload=joined)


def _error_frame(frame: Frame, message: str) -> Frame:
    text = message.encode()[:MAX_TEXT_BYTES]
    return frame._replace(kind=Kind.ERROR, codec=0, rows=0, width=0, runs=(), payload=text)
