"""The hot loop between two links that are lists."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event

import numpy as np
import pytest

from hyperlane.artifacts import Blob
from hyperlane.errors import OutOfMemoryError, WorkerError
from hyperlane.transport.frame import Frame, Kind, Run
from hyperlane.worker.codecs import open_codecs
from hyperlane.worker.pump import Pump
from tests.worker.fakes import FakeSession, make_spec, wiring


@dataclass
class Links:
    """Both ends: what comes in, and what went out. Stops the pump when nothing is left."""

    incoming: list[Frame]
    stop: Event = field(default_factory=Event)
    outgoing: list[Frame] = field(default_factory=list)
    arrived_ns: int = 0

    def recv(self, timeout_s: float) -> Frame:
        if not self.incoming:
            self.stop.set()
            raise TimeoutError
        return self.incoming.pop(0)

    def send(self, frame: Frame, timeout_s: float) -> None:
        self.outgoing.append(frame)


def pumped(session: FakeSession, *frames: Frame, decode_codec: str = "raw") -> list[Frame]:
    """What comes out for these frames."""
    links, link = Links(list(frames)), wiring(decode_codec=decode_codec)
    Pump(links, session, links, link, open_codecs(link), "w", np.float32).run(links.stop)
    return links.outgoing


@pytest.fixture
def session() -> FakeSession:
    return FakeSession(make_spec(Blob(sha256="0" * 64, bytes=1), (), last=False))


def tokens(*runs: Run) -> Frame:
    rows = sum(run.count for run in runs)
    return Frame(kind=Kind.TOKENS, epoch=1, rows=rows, width=1, runs=runs, payload=bytes(4 * rows))


def codec_ids(frames: Sequence[Frame]) -> list[int]:
    return [frame.codec for frame in frames]


def test_a_fork_is_done_and_passed_on(session: FakeSession) -> None:
    fork = Frame(kind=Kind.FORK, epoch=1, step=7, rows=20, payload=np.array([3, 1], "<u2").tobytes())
    assert pumped(session, fork) == [fork]
    assert session.copies == [(3, 1, 20)]


def test_a_fork_that_fails_becomes_an_error(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(self: FakeSession, source: int, target: int, count: int) -> None:
        raise WorkerError("slot 3 holds 5 positions")

    monkeypatch.setattr(FakeSession, "copy", copy)
    fork = Frame(kind=Kind.FORK, epoch=1, step=7, rows=20, payload=np.array([3, 1], "<u2").tobytes())
    (answer,) = pumped(session, fork)
    assert (answer.kind, answer.step, answer.text) == (Kind.ERROR, 7, "worker w: slot 3 holds 5 positions")


def test_a_step_without_memory_is_told_apart(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: FakeSession, *args: object) -> None:
        raise OutOfMemoryError("a step of 1 rows ran out of memory")

    monkeypatch.setattr(FakeSession, "run", run)
    (answer,) = pumped(session, tokens(Run(0, 1, 0, 1)))
    assert answer.text == "out of memory at worker w: a step of 1 rows ran out of memory"


def test_a_frame_of_another_epoch_is_dropped(session: FakeSession) -> None:
    assert pumped(session, Frame(kind=Kind.FORK, epoch=2, rows=1, payload=bytes(4))) == []
    assert session.copies == []


def test_drafts_travel_as_the_tokens_do_that_they_replace(session: FakeSession) -> None:
    prompt, last, token, drafts = Run(0, 0, 0, 3), Run(0, 1, 3, 2), Run(0, 1, 5, 1), Run(0, 4, 6, 4)
    sent = pumped(session, *(tokens(run) for run in (prompt, last, token, drafts)), decode_codec="int8")
    assert codec_ids(sent) == [0, 0, 1, 1]
