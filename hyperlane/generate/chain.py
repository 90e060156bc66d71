"""The chain of workers as the coordinator drives it: wiring over the control plane, steps over the data links."""

import logging
import secrets
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from hyperlane.artifacts import Deployment, LinkReport, Shard
from hyperlane.control.client import ControlClient
from hyperlane.control.types import State
from hyperlane.errors import OutOfMemoryError, StepError, TablesError, TransportError, WorkerError, one_line
from hyperlane.generate.engine import Rows
from hyperlane.generate.step import Following, Step
from hyperlane.generate.wiring import RAW, Home, LinkCodecs, wire
from hyperlane.timeline.clocks import Asked, offset_ns
from hyperlane.timeline.record import Trip
from hyperlane.timeline.timeline import Timeline, WorkerLine
from hyperlane.transport.answer import Answer
from hyperlane.transport.candidates import candidates_of
from hyperlane.transport.frame import MISMATCH, OUT_OF_MEMORY, WANT_LOGITS, Frame, Kind
from hyperlane.transport.link import Receiver, Sender, connect, open_receiver

COORDINATOR = "coordinator"
KEPT_STEPS = 16384
"""Trips of the latest steps, for the timeline."""
CLOCK_QUESTIONS = 8
ASK_S = 0.5
"""After so long a silence, and as often, the workers are asked why nothing comes."""
_RANDOM_BITS = 8
_NO_IDS, _NO_LOGITS = np.empty((0, 1), np.int64), np.empty((0, 1), np.float32)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """How links are opened; `step_timeout_s` is the longest silence before the chain counts as broken."""

    native: bool
    queue_depth: int
    max_frame_bytes: int
    connect_timeout_s: float
    step_timeout_s: float
    shortcut: bool = True  # where two workers can


@dataclass(slots=True)
class Chain:
    """An epoch of wired workers. Steps come back in the order in which they were sent."""

    deployment: Deployment
    clients: Sequence[ControlClient]
    home: Home
    links: tuple[LinkCodecs, ...]  # between workers, as they are wired
    epoch: int
    receiver: Receiver
    sender: Sender
    step_timeout_s: float
    shortcut: bool
    _sent: dict[int, tuple[int, int]] = field(default_factory=dict)  # steps under way: sending_ns, sent_ns
    _trips: deque[Trip] = field(default_factory=lambda: deque(maxlen=KEPT_STEPS))
    _in_flight: int = 0
    _heard_s: float = 0.0  # when the last frame came, or the first was sent after it
    _asked_s: float = 0.0

    def send(self, step: Step, *, whole_rows: bool) -> None:
        if not self._in_flight:
            self._heard_s = self._asked_s = time.monotonic()
        sending_ns = time.monotonic_ns()
        try:
            self.sender.send(_frame(step, self.epoch, whole_rows), timeout_s=self.step_timeout_s)
            self._in_flight += 1
        except (TransportError, TimeoutError) as error:
            self._raise_failure()
            worker = self.deployment.shards[0].worker
            raise WorkerError(f"worker {worker} takes no more steps: {one_line(error)}; look at its log") from error
        self._sent[step.number] = (sending_ns, time.monotonic_ns())

    def receive(self, step: Step, timeout_s: float, following: Following | None = None) -> Rows:
        """The result of `step`; TimeoutError where there is none yet. What follows may be sent by itself meanwhile.

        StepError where a worker could not compute it, WorkerError where one failed or the chain fell silent.
        """
        frame = self._next_frame(timeout_s, None if following is None else self._answer(step, following))
        answered = self.receiver.answered
        if following is not None and answered is not None:
            self._in_flight += 1
            self._sent[following.step.number] = answered.sending_ns, answered.sent_ns
        sent = self._sent.pop(frame.step, None)
        if frame.kind == Kind.ERROR:
            raise self._error(bytes(frame.payload).decode(errors="replace"))
        if frame.step != step.number or (frame.kind == Kind.FORK) != (step.fork is not None):
            raise TransportError(f"the result of step {frame.step} came where that of {step.number} was due; run again")
        if sent is not None:
            self._trips.append(Trip(step.number, *sent, self.receiver.arrived_ns, time.monotonic_ns()))
        return _rows(frame) if answered is None else Rows(_NO_IDS, _NO_LOGITS, answered.tokens)

    def rewire(self, mismatch: TablesError) -> None:
        """Begin an epoch in which the link to the worker that lacks tables carries raw rows."""
        shards = self.deployment.shards
        index = next((i for i, shard in enumerate(shards) if shard.worker == mismatch.worker), 0)
        if index == 0 or self.links[index - 1] == RAW:
            raise WorkerError(f"{mismatch}, though its link carries raw rows; deploy again")
        log.warning("link %s -> %s carries raw rows: %s", shards[index - 1].worker, shards[index].worker, mismatch)
        links = (*self.links[: index - 1], RAW, *self.links[index:])
        self.epoch, self._in_flight = next_epoch((self.epoch,)), 0
        self._sent.clear()
        self.links = wire(self.clients, shards, self.home, links, self.epoch, shortcut=self.shortcut)

    def reports(self) -> tuple[LinkReport, ...]:
        """What each link carried in this epoch, in chain order."""
        shards = self.deployment.shards
        first = LinkReport(
            source=COORDINATOR,
            target=shards[0].worker,
            codec="tokens",
            frames=self.sender.frames,
            wire_bytes=self.sender.wire_bytes,
            fp16_bytes=0,
        )
        rest = [
            LinkReport(
                source=shard.worker,
                target=link.target,
                codec=link.codec,
                frames=link.frames,
                wire_bytes=link.wire_bytes,
                fp16_bytes=link.fp16_bytes,
            )
            for shard, client in zip(shards, self.clients, strict=True)
            for link in client.stats().result().links
        ]
        return (first, *rest)

    def timeline(self) -> Timeline:
        """When each step of this epoch was where; for when none is under way."""
        numbers = [trip.step for trip in self._trips]
        lines = [
            _line(shard.worker, client, len(numbers))
            for shard, client in zip(self.deployment.shards, self.clients, strict=True)
        ]
        return Timeline(tuple(lines), tuple(self._trips)).part(numbers)

    def _error(self, text: str) -> StepError | TablesError:
        for shard in self.deployment.shards:
            if text.startswith(f"{MISMATCH}{shard.worker}: "):
                return TablesError(text, shard.worker)
        return OutOfMemoryError(text) if text.startswith(OUT_OF_MEMORY) else StepError(text)

    def _answer(self, step: Step, following: Following) -> Answer:
        frame = _token_frame(following.step, self.epoch)
        return Answer(sender=self.sender, step=step.number, frame=frame, stop_ids=following.stop_ids)

    def _next_frame(self, timeout_s: float, answer: Answer | None) -> Frame:
        """The next of this epoch; TimeoutError where none comes."""
        while True:
            try:
                frame = self.receiver.recv(timeout_s, answer)
            except TimeoutError:
                self._endure_silence()
                raise
            if frame.epoch == self.epoch:
                self._in_flight -= 1
                self._heard_s = self._asked_s = time.monotonic()
                return frame

    def _endure_silence(self) -> None:
        """A step may just take long; WorkerError where a worker failed, or where it took too long."""
        now_s = time.monotonic()
        if now_s - self._heard_s > self.step_timeout_s:
            raise WorkerError(
                f"the chain was silent for {self.step_timeout_s:g} s; look at the workers' logs, "
                f"or raise transport.step_timeout_s"
            )
        if now_s - self._asked_s > ASK_S:
            self._asked_s = now_s
            self._raise_failure()

    def _raise_failure(self) -> None:
        """Ask the workers why nothing comes."""
        for shard, client in zip(self.deployment.shards, self.clients, strict=True):
            stats = client.stats().result()
            if stats.failure:
                raise WorkerError(f"worker {shard.worker} failed: {stats.failure}")
            if stats.epoch != self.epoch or stats.state != State.READY:
                raise WorkerError(f"worker {shard.worker} was taken over by another run; run again after it")


@contextmanager
def open_chain(deployment: Deployment, links: Sequence[LinkCodecs], options: LinkOptions) -> Iterator[Chain]:
    """Wire the workers for a new epoch, with `links` between them, and connect to both ends."""
    shards = deployment.shards
    with ExitStack() as exits:
        clients = [exits.enter_context(ControlClient(shard.control_address, shard.worker)) for shard in shards]
        stats = [client.stats().result() for client in clients]
        epoch = next_epoch(found.epoch for found in stats)
        identity = f"{COORDINATOR}#{uuid.uuid4().hex[:8]}"
        receiver = open_receiver(
            local_host(shards[-1]),
            0,
            identity,
            queue_depth=options.queue_depth,
            max_frame_bytes=options.max_frame_bytes,
            native=options.native,
        )
        exits.callback(receiver.close)
        home = Home(identity, receiver.address)
        carried = wire(clients, shards, home, links, epoch, shortcut=options.shortcut)
        sender = connect(
            shards[0].data_addresses,
            stats[0].identity,
            timeout_s=options.connect_timeout_s,
            queue_depth=options.queue_depth,
            native=options.native,
        )
        exits.callback(sender.close)
        timeout_s, shortcut = options.step_timeout_s, options.shortcut
        yield Chain(deployment, clients, home, carried, epoch, receiver, sender, timeout_s, shortcut)


def next_epoch(epochs: Iterable[int]) -> int:
    """Later than all of `epochs`; its low bits are random, so that two runs that begin together do not share one."""
    return ((max(epochs) >> _RANDOM_BITS) + 1 << _RANDOM_BITS) | secrets.randbelow(1 << _RANDOM_BITS)


def local_host(shard: Shard) -> str:
    """This machine's address on the path to a worker: where the worker can reach us."""
    host, _, port = shard.control_address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # sends nothing; the kernel only chooses a route
        return str(probe.getsockname()[0])


def _line(name: str, client: ControlClient, steps: int) -> WorkerLine:
    """A worker's records on our clock."""
    questions = []
    for _ in range(CLOCK_QUESTIONS):
        asked_ns = time.monotonic_ns()
        theirs_ns = client.records(0).result().now_ns
        questions.append(Asked(asked_ns, theirs_ns, time.monotonic_ns()))
    ahead_ns = offset_ns(questions)
    return WorkerLine(name, tuple(step.shifted(ahead_ns) for step in client.records(steps).result().steps))


def _frame(step: Step, epoch: int, whole_rows: bool) -> Frame:
    if step.fork is not None:
        slots = np.array((step.fork.source, step.fork.target), "<u2")
        return Frame(
            kind=Kind.FORK, epoch=epoch, lane=step.lane, step=step.number, rows=step.fork.count, payload=slots.tobytes()
        )
    frame = _token_frame(step, epoch)
    return frame._replace(flags=WANT_LOGITS if whole_rows else 0, payload=np.asarray(step.token_ids, "<i4").data)


def _token_frame(step: Step, epoch: int) -> Frame:
    """Without its tokens."""
    rows = sum([run.count for run in step.runs])
    return Frame(kind=Kind.TOKENS, epoch=epoch, lane=step.lane, step=step.number, rows=rows, width=1, runs=step.runs)


def _rows(frame: Frame) -> Rows:
    if frame.kind == Kind.FORK:
        return Rows(_NO_IDS, _NO_LOGITS)
    if frame.kind == Kind.LOGITS:
        logits_NV = np.frombuffer(frame.payload, "<f4").reshape(frame.rows, frame.width)
        return Rows(np.broadcast_to(np.arange(frame.width), logits_NV.shape), logits_NV)
    if frame.kind != Kind.CANDIDATES:
        raise TransportError(f"the last worker sent a frame of kind {frame.kind}, not candidates or logits")
    ids_NK, logits_NK = candidates_of(frame)
    return Rows(ids_NK.astype(np.int64), logits_NK)
