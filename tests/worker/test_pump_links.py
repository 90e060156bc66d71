"""A pump between real links, with a session that only adds."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from hyperlane.errors import TransportError
from hyperlane.transport.frame import WANT_LOGITS, Frame, Kind, Run
from hyperlane.transport.link import Receiver, Sender, connect, open_receiver
from hyperlane.transport.shortcut import Shortcut
from hyperlane.worker.codecs import open_codecs
from hyperlane.worker.pump import Pump
from tests.transport.memory_ring import MemoryLanding, MemoryShortcut
from tests.worker.fakes import FakeSession, make_spec, wiring

WAIT_S = 20.0
BLOB: Any = None


@dataclass(slots=True)
class Bench:
    """Both ends of a running pump."""

    pump: Pump
    sender: Sender
    receiver: Receiver

    def send(self, step: int, **changes: Any) -> None:
        ids = np.full(1, step, "<i4")
        frame = Frame(Kind.TOKENS, epoch=1, step=step, rows=1, width=1, runs=(Run(0, 1, 5, 1),), payload=ids.data)
        self.sender.send(frame._replace(**changes), WAIT_S)


@contextmanager
def running(
    overlap: bool, session: Any, last: Sender | None = None, shortcut: Shortcut | None = None
) -> Iterator[Bench]:
    """last: where results go instead of home."""
    stop, failures = threading.Event(), []
    with ExitStack() as exits:
        incoming, home = (exits.enter_context(closing(open_receiver("127.0.0.1", 0, name))) for name in "wc")
        first, answers = (
            exits.enter_context(closing(connect([receiver.address], name, timeout_s=WAIT_S)))
            for receiver, name in ((incoming, "w"), (home, "c"))
        )
        wired = wiring(1)
        codecs = open_codecs(wired)
        pump = Pump(incoming, session, last or answers, wired, codecs, "w", "float32", overlap, shortcut=shortcut)

        def run() -> None:
            try:
                pump.run(stop)
            except TransportError as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield Bench(pump, first, home)
        finally:
            stop.set()
            thread.join(WAIT_S)
        assert not thread.is_alive()
        assert not failures


def session(**changes: Any) -> FakeSession:
    return FakeSession(make_spec(BLOB, (), **changes))


@pytest.fixture(params=[False, True], ids=["in turn", "overlapped"])
def overlap(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_steps_are_answered_in_order_and_recorded(overlap: bool) -> None:
    with running(overlap, session(last=False)) as bench:
        for step in range(50):
            bench.send(step)
        for step in range(50):
            frame = bench.receiver.recv(WAIT_S)
            assert (frame.step, frame.kind, frame.runs) == (step, Kind.HIDDEN, (Run(0, 1, 5, 1),))
            assert np.frombuffer(frame.payload, np.float32).tolist() == [step + 4.0] * 2
    records = bench.pump.records()
    assert [record.step for record in records] == list(range(50))
    for record in records:
        assert list(record[4:]) == sorted(record[4:])
        assert (record.rows, record.prefill) == (1, False)
    assert bench.pump.counters().fp16_bytes == 50 * 4


def test_candidates_and_whole_rows(overlap: bool) -> None:
    with running(overlap, session()) as bench:
        bench.send(1)
        bench.send(2, flags=WANT_LOGITS)
        found = bench.receiver.recv(WAIT_S)
        assert (found.kind, found.rows, found.width) == (Kind.CANDIDATES, 1, 1)
        assert np.frombuffer(found.payload, "<i4")[0] == 10
        assert np.frombuffer(found.payload, "<f4")[1:].tolist() == [10.0, 10.0]
        whole = bench.receiver.recv(WAIT_S)
        assert (whole.kind, np.frombuffer(whole.payload, "<f4").tolist()) == (Kind.LOGITS, [6.0, 6.0])


def test_a_failed_step_is_an_error_and_the_next_goes_on(overlap: bool) -> None:
    with running(overlap, session()) as bench:
        bench.send(1, runs=(Run(0, 1, 64, 1),))
        bench.send(2)
        failed = bench.receiver.recv(WAIT_S)
        assert (failed.kind, failed.step) == (Kind.ERROR, 1)
        assert failed.text == "worker w: position 64 is beyond the context of 64"
        assert bench.receiver.recv(WAIT_S).step == 2
    assert [record.step for record in bench.pump.records()] == [2]


def test_errors_pass_and_other_epochs_do_not(overlap: bool) -> None:
    with running(overlap, session()) as bench:
        bench.send(1, epoch=7)
        bench.send(2, kind=Kind.ERROR, rows=0, width=0, runs=(), payload=b"it broke")
        frame = bench.receiver.recv(WAIT_S)
        assert (frame.step, frame.text) == (2, "it broke")


def test_a_copy_is_recorded_too(overlap: bool) -> None:
    with running(overlap, session()) as bench:
        bench.send(4, kind=Kind.FORK, rows=9, width=0, runs=(), payload=np.array([1, 0], "<u2").tobytes())
        bench.send(5)
        assert [bench.receiver.recv(WAIT_S).kind for _ in range(2)] == [Kind.FORK, Kind.CANDIDATES]
    assert [(record.step, record.rows) for record in bench.pump.records()] == [(4, 0), (5, 1)]


@dataclass(slots=True)
class Gated:
    """A session whose steps wait, so that frames pile up."""

    gate: threading.Event
    inner: FakeSession

    def run(self, runs: Any, rows: Any, want_logits: bool) -> Any:
        assert self.gate.wait(WAIT_S)
        return self.inner.run(runs, rows, want_logits)

    def decode_call(self, rows: int) -> None: ...

    def close(self) -> None: ...


def test_steps_that_pile_up_keep_their_order(overlap: bool) -> None:
    gate = threading.Event()
    with running(overlap, Gated(gate, session(last=False))) as bench:
        for step in range(12):
            bench.send(step)
        gate.set()
        assert [bench.receiver.recv(WAIT_S).step for _ in range(12)] == list(range(12))


def test_rows_by_a_shortcut_leave_a_ticket_and_come_back(overlap: bool) -> None:
    """What one pump leaves in shared memory the next one takes; a step too large for it goes by TCP."""
    with ExitStack() as exits:
        home = exits.enter_context(closing(open_receiver("127.0.0.1", 0, "c#1")))
        landing = exits.enter_context(closing(MemoryLanding("c#1", "float32")))
        last = exits.enter_context(closing(connect([home.address], "c#1", timeout_s=WAIT_S)))
        with running(overlap, session(last=False), last=last, shortcut=MemoryShortcut("c#1", "float32")) as bench:
            for step, rows in enumerate((1, 3, 600, 2)):
                ids = np.full(rows, step, "<i4")
                bench.send(step, rows=rows, runs=(Run(0, 1, 5, rows),), payload=ids.data)
            codecs = open_codecs(wiring(1))
            incoming = Pump(home, session(), last, wiring(1), codecs, "w", "float32", landing=landing)
            for step, rows in enumerate((1, 3, 600, 2)):
                frame = home.recv(WAIT_S)
                assert (frame.step, frame.kind) == (step, Kind.HIDDEN if rows == 600 else Kind.PLACED)
                incoming = Pump(
                    home, session(), last, wiring(1), open_codecs(wiring(1)), "w", "float32", landing=landing
                )
                assert np.array_equal(incoming._rows(frame), np.full((rows, 2), step + 4.0, np.float32))
        assert bench.pump.counters().codec == "memory+raw"
        assert bench.pump.counters().fp16_bytes == 606 * 4


def test_a_ticket_where_nobody_laid_rows_is_an_error(overlap: bool) -> None:
    with running(overlap, session()) as bench:
        bench.send(3, kind=Kind.PLACED, width=2, payload=bytes(16))
        failed = bench.receiver.recv(WAIT_S)
        assert (failed.kind, failed.step) == (Kind.ERROR, 3)


@dataclass(slots=True)
class OnGpu:
    """A session whose steps end on a GPU long after they were queued."""

    inner: FakeSession

    def run(self, runs: Any, rows: Any, want_logits: bool) -> Any:
        begin_ns = time.monotonic_ns() + 10**9
        return replace(self.inner.run(runs, rows, want_logits), gpu_ns=lambda: (begin_ns, begin_ns + 5000))

    def decode_call(self, rows: int) -> None: ...

    def close(self) -> None: ...


def test_a_step_on_a_gpu_takes_as_long_as_the_gpu_says(overlap: bool) -> None:
    with running(overlap, OnGpu(session(last=False))) as bench:
        bench.send(1)
        assert bench.receiver.recv(WAIT_S).step == 1
    (record,) = bench.pump.records()
    assert record.computed_ns - record.started_ns == 5000
    assert list(record[4:]) == sorted(record[4:])
