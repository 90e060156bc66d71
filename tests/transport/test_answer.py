"""Answers to candidates: what `reply` says is what every link sends, before whoever receives sees the candidates."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hyperlane.transport.answer import Answer, reply
from hyperlane.transport.candidates import greedy
from hyperlane.transport.frame import Frame, Kind, Run, pack, unpack
from hyperlane.transport.link import Receiver, Sender, connect, open_receiver

WAIT_S = 20.0
pytestmark = pytest.mark.timeout(60)
LOGITS = st.sampled_from([-1.0, -0.0, 0.0, 2.5, 7.0, float("inf"), float("-inf"), float("nan")])


class Ends(NamedTuple):
    """A worker that sends candidates home, and the link on which home sends the next step."""

    home: Receiver
    last: Sender
    first: Receiver
    onward: Sender


@contextmanager
def opened(native: bool) -> Iterator[Ends]:
    with ExitStack() as exits:
        home, first = (
            exits.enter_context(closing(open_receiver("127.0.0.1", 0, name, native=native))) for name in ("h#0", "w1#0")
        )
        last, onward = (
            exits.enter_context(closing(connect([receiver.address], name, timeout_s=WAIT_S, native=native)))
            for receiver, name in ((home, "h#0"), (first, "w1#0"))
        )
        yield Ends(home, last, first, onward)


@pytest.fixture(scope="module", params=[True, False], ids=["native", "python"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    with opened(request.param) as found:
        yield found


def runs(rows: int, position: int) -> tuple[Run, ...]:
    return tuple(Run(slot, 1, position, 1) for slot in range(rows))


def candidates(ids_NK: NDArray[np.int32], logits_NK: NDArray[np.float32], **changes: object) -> Frame:
    rows, width = ids_NK.shape
    payload = b"".join(array.tobytes() for array in (ids_NK, logits_NK, np.zeros(rows, np.float32)))
    frame = Frame(Kind.CANDIDATES, 0, 0, 7, 1, 40, rows, width, runs(rows, 5), payload)
    return frame._replace(**changes)


def answer(ends: Ends, rows: int, *stop_ids: int) -> Answer:
    frame = Frame(kind=Kind.TOKENS, epoch=7, lane=1, step=42, rows=rows, width=1, runs=runs(rows, 6))
    return Answer(sender=ends.onward, step=40, frame=frame, stop_ids=frozenset(stop_ids))


def exchanged(ends: Ends, frame: Frame, given: Answer) -> Frame | None:
    """What went on when `frame` came home."""
    ends.last.send(frame, WAIT_S)
    assert ends.home.recv(WAIT_S, given).payload == frame.payload, "home sees it too"
    return None if ends.home.answered is None else ends.first.recv(WAIT_S)


IDS = np.array([[5, 9, 3], [1, 2, 8]], np.int32)
VALUES_NK = np.array([[4, 3, 2], [1, 1, 0]], np.float32)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), rows=st.integers(1, 4), width=st.integers(1, 5))
def test_every_link_sends_what_reply_gives(ends: Ends, data: st.DataObject, rows: int, width: int) -> None:
    draw = lambda values, kind: np.array(  # noqa: E731
        data.draw(st.lists(values, min_size=rows * width, max_size=rows * width)), kind
    ).reshape(rows, width)
    frame = candidates(draw(st.integers(0, 9), np.int32), draw(LOGITS, np.float32))
    given_answer = answer(ends, rows, *data.draw(st.sets(st.integers(0, 9), max_size=2)))
    expected = reply(given_answer, frame)
    found = exchanged(ends, frame, given_answer)
    assert found == (None if expected is None else unpack(pack(expected)))


def test_the_tokens_of_all_rows_go_on_the_lower_id_on_a_tie(ends: Ends) -> None:
    begun_ns = time.monotonic_ns()
    found = exchanged(ends, candidates(IDS, VALUES_NK), answer(ends, 2))
    assert found is not None
    assert np.frombuffer(found.payload, "<i4").tolist() == [5, 1] == greedy(IDS, VALUES_NK)
    assert (found.step, found.epoch, found.lane, found.runs) == (42, 7, 1, runs(2, 6))
    tokens, sending_ns, sent_ns = ends.home.answered
    assert tokens == [5, 1]
    assert begun_ns <= ends.home.arrived_ns <= sending_ns <= sent_ns <= time.monotonic_ns()


@pytest.mark.parametrize("changes", [{"step": 41}, {"epoch": 8}, {"kind": Kind.LOGITS, "width": 7}])
def test_what_is_not_answered_comes_home_alone(ends: Ends, changes: dict[str, object]) -> None:
    assert exchanged(ends, candidates(IDS, VALUES_NK, **changes), answer(ends, 2)) is None


def test_a_stop_token_of_any_row_and_another_number_of_rows_are_not_answered(ends: Ends) -> None:
    assert exchanged(ends, candidates(IDS, VALUES_NK), answer(ends, 2, 1)) is None
    assert exchanged(ends, candidates(IDS, VALUES_NK), answer(ends, 3)) is None
    assert exchanged(ends, candidates(IDS, VALUES_NK), answer(ends, 2, 9, 2)) is not None


def test_an_answer_is_for_one_frame_and_the_next_has_its_own(ends: Ends) -> None:
    for step in range(40, 60):
        given = answer(ends, 2)
        given = Answer(sender=given.sender, step=step, frame=given.frame._replace(step=step + 2), stop_ids=frozenset())
        found = exchanged(ends, candidates(IDS, VALUES_NK, step=step), given)
        assert found is not None
        assert found.step == step + 2
        assert exchanged(ends, candidates(IDS, VALUES_NK, step=step), answer(ends, 9)) is None


@pytest.mark.parametrize("native", [True, False])
def test_over_a_broken_link_nothing_is_answered(native: bool) -> None:
    with opened(native) as ends:
        ends.onward.close()
        assert exchanged(ends, candidates(IDS, VALUES_NK), answer(ends, 2)) is None


def test_a_native_receiver_answers_by_a_sender_in_python_too() -> None:
    with opened(True) as ends, closing(connect([ends.first.address], "w1#0", timeout_s=WAIT_S, native=False)) as onward:
        assert exchanged(ends._replace(onward=onward), candidates(IDS, VALUES_NK), answer(ends, 2)) is not None
