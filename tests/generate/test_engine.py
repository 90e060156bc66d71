"""The engine over a chain that computes a toy model: what comes out does not depend on how it was batched."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane.artifacts import GeneratedText
from hyperlane.errors import HyperlaneError, RequestError, StepError, TablesError, WorkerError
from hyperlane.generate.engine import CANDIDATES, Engine, Rows
from hyperlane.generate.sampling import Sampling
from hyperlane.generate.scheduler import Drafts, Scheduler, Shape
from hyperlane.generate.step import Following, Step
from hyperlane.generate.text import Limits, Prompt
from tests.generate.toy import ToyWorkers, answered

VOCAB = 256
STOP = 0


class ToyChain:
    """The logits of a row are drawn from all tokens up to it."""

    def __init__(self) -> None:
        self.workers = ToyWorkers()
        self.results: deque[tuple[Step, Rows]] = deque()
        self.fail_at: tuple[int, ...] = ()
        self.lacks_tables_at: tuple[int, ...] = ()
        self.late: set[int] = set()
        self.rewired = 0
        self.answers = True  # sends what follows by itself
        self.answered = 0

    def send(self, step: Step, *, whole_rows: bool) -> None:
        outputs = self.workers.outputs(step)
        self.results.append((step, self._rows(outputs, VOCAB if whole_rows else CANDIDATES)))

    def receive(self, step: Step, timeout_s: float, following: Following | None) -> Rows:
        if step.number in self.late:
            self.late.remove(step.number)
            raise TimeoutError
        sent, rows = self.results.popleft()
        assert sent == step
        if step.number in self.fail_at:
            raise StepError("worker w1: no memory")
        if step.number in self.lacks_tables_at:
            raise TablesError("the frame was made with other tables", "w1")
        rows = answered(self, rows, following) if self.answers else rows
        self.answered += rows.answered is not None
        return rows

    def rewire(self, mismatch: TablesError) -> None:
        assert mismatch.worker == "w1"
        self.rewired += 1
        self.results.clear()
        self.workers.keys.clear()

    def _rows(self, outputs: list[list[int]], width: int) -> Rows:
        ids, logits = [], []
        for keys in outputs:
            row = np.random.default_rng(keys).normal(0, 4, VOCAB).astype(np.float32)
            order = np.argsort(-row)[:width]
            ids.append(order)
            logits.append(row[order])
        return Rows(np.array(ids).reshape(len(outputs), width), np.array(logits).reshape(len(outputs), width))


class Letters:
    def push(self, token_id: int) -> str:
        return chr(0x4E00 + token_id)

    def finish(self) -> str:
        return ""


def make(slots: int = 4, lanes: int = 2, chunk: int = 4, drafts: Drafts | None = None, **kwargs: object) -> Engine:
    scheduler = Scheduler(slots=slots, lanes=lanes, context=64, prefill_chunk=chunk, hops=2, drafts=drafts)
    settings = {"sampling": Sampling(), "limits": Limits(max_new_tokens=8), **kwargs}
    return Engine(chain=ToyChain(), scheduler=scheduler, stop_ids=frozenset({STOP}), open_decoder=Letters, **settings)


def run(engine: Engine, *token_ids: tuple[int, ...]) -> tuple[GeneratedText, ...]:
    prompts = [Prompt(index, f"p{index}", ids) for index, ids in enumerate(token_ids)]
    return engine.run(prompts, lambda index, piece: None, lambda: None)


PROMPTS = [tuple(range(n, n + length)) for n, length in ((1, 3), (9, 17), (40, 1), (60, 9), (90, 30))]


def alone(index: int, **kwargs: object) -> tuple[int, ...]:
    """Request `index` by itself; the index keys its draws."""
    engine = make(1, 1, 64, **kwargs)
    (answer,) = engine.run([Prompt(index, "", PROMPTS[index])], lambda i, piece: None, lambda: None)
    return answer.token_ids


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 40), st.booleans(), st.booleans())
def test_tokens_do_not_depend_on_slots_lanes_or_chunks(
    slots: int, lanes: int, chunk: int, sampled: bool, answers: bool
) -> None:
    kwargs = {"sampling": Sampling(temperature=1.0, top_k=20, seed=5)} if sampled else {}
    engine = make(slots, min(lanes, slots), chunk, **kwargs)
    engine.chain.answers = answers
    assert [answer.token_ids for answer in run(engine, *PROMPTS)] == [alone(i, **kwargs) for i in range(len(PROMPTS))]


def test_the_next_step_of_greedy_streams_is_sent_before_the_last_is_taken_in() -> None:
    plain, sampled = make(1, 1), make(1, 1, sampling=Sampling(temperature=1.0, top_k=20, seed=5))
    stopping = make(1, 1, limits=Limits(max_new_tokens=8, stop=("x",)))
    for engine in (plain, sampled, stopping):
        run(engine, (1, 2, 3))
    assert [engine.chain.answered for engine in (plain, sampled, stopping)] == [6, 0, 0], "all but the first and last"


def test_a_text_ends_at_its_length_its_stop_token_or_the_end_of_its_slot() -> None:
    (answer,) = run(make(limits=Limits(max_new_tokens=5)), (1, 2, 3))
    assert (len(answer.token_ids), answer.finish_reason) == (5, "length")
    (answer,) = run(make(limits=Limits(max_new_tokens=500)), tuple(range(60)))
    assert (len(answer.token_ids), answer.finish_reason) == (4, "length")


def test_a_stop_token_ends_the_text_unless_ignored() -> None:
    (free,) = run(make(), (1, 2, 3))
    third = free.token_ids[2]
    engine = make()
    engine.stop_ids = frozenset({third})
    (answer,) = run(engine, (1, 2, 3))
    assert (answer.token_ids, answer.finish_reason) == (free.token_ids[:3], "stop")
    assert answer.text == free.text[:2]
    engine = make(limits=Limits(max_new_tokens=8, ignore_eos=True))
    engine.stop_ids = frozenset({third})
    assert run(engine, (1, 2, 3))[0].token_ids == free.token_ids


def test_a_stop_string_ends_the_text_before_it() -> None:
    (free,) = run(make(), (1, 2, 3))
    (answer,) = run(make(limits=Limits(max_new_tokens=8, stop=(free.text[3:5],))), (1, 2, 3))
    assert (answer.text, answer.finish_reason) == (free.text[:3], "stop")


def test_text_comes_in_pieces_that_add_up() -> None:
    pieces: dict[int, str] = {}
    prompts = [Prompt(i, "", ids) for i, ids in enumerate(PROMPTS)]

    def collect(index: int, piece: str) -> None:
        pieces[index] = pieces.get(index, "") + piece

    answers = make().run(prompts, collect, lambda: None)
    assert [pieces[i] for i in range(len(prompts))] == [answer.text for answer in answers]


def test_an_engine_serves_again_after_a_cancelled_run() -> None:
    engine = make(2, 2)
    calls = 0

    def cancel() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    prompts = [Prompt(i, "", ids) for i, ids in enumerate(PROMPTS)]
    with pytest.raises(KeyboardInterrupt):
        engine.run(prompts, lambda index, piece: None, cancel)
    answers = run(engine, *PROMPTS)
    assert [answer.token_ids for answer in answers] == [alone(i) for i in range(len(PROMPTS))]


@pytest.mark.parametrize("lacking", [(1,), (7,), (2, 12)])
def test_texts_go_on_after_a_link_lost_its_tables(lacking: tuple[int, ...]) -> None:
    engine, pieces = make(2, 2), [""] * len(PROMPTS)
    engine.chain.lacks_tables_at = lacking

    def collect(index: int, piece: str) -> None:
        pieces[index] += piece

    prompts = [Prompt(i, "", ids) for i, ids in enumerate(PROMPTS)]
    answers = engine.run(prompts, collect, lambda: None)
    assert engine.chain.rewired == len(lacking)
    assert [answer.token_ids for answer in answers] == [alone(i) for i in range(len(PROMPTS))]
    assert [answer.text for answer in answers] == pieces, "nothing is said twice"


class ToyMover:
    """At some turns, and after some breaks, other workers are in the chain's place, with nothing in their caches."""

    def __init__(self, chain: ToyChain, at: tuple[int, ...], mends: int) -> None:
        self.chain, self.at, self.mends = chain, at, mends
        self.turns, self.seen = 0, 0

    def observe(self, step: Step) -> None:
        self.seen += 1

    def turn(self) -> Shape | None:
        self.turns += 1
        return self.another(1 + self.turns % 3) if self.turns in self.at else None

    def mend(self, error: HyperlaneError) -> Shape | None:
        self.mends -= 1
        return self.another(2) if self.mends >= 0 else None

    def another(self, hops: int) -> Shape:
        self.chain.results.clear()
        self.chain.workers.keys.clear()
        return Shape(hops, min(hops, 2))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 40), max_size=4), st.booleans())
def test_texts_go_on_with_the_same_tokens_over_other_workers(turns: list[int], sampled: bool) -> None:
    kwargs = {"sampling": Sampling(temperature=1.0, top_k=20, seed=5)} if sampled else {}
    engine, pieces = make(2, 2, **kwargs), [""] * len(PROMPTS)
    engine.mover = mover = ToyMover(engine.chain, tuple(turns), 0)

    def collect(index: int, piece: str) -> None:
        pieces[index] += piece

    prompts = [Prompt(i, "", ids) for i, ids in enumerate(PROMPTS)]
    answers = engine.run(prompts, collect, lambda: None)
    assert [answer.token_ids for answer in answers] == [alone(i, **kwargs) for i in range(len(PROMPTS))]
    assert [answer.text for answer in answers] == pieces, "nothing is lost or said twice"
    assert mover.seen > 0


@pytest.mark.parametrize("broken", ["send", "receive"])
def test_texts_go_on_after_a_chain_broke_and_was_mended(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(2, 2)
    engine.mover = ToyMover(engine.chain, (), 2)
    whole, calls = getattr(engine.chain, broken), iter(range(10_000))

    def breaks(*args: object, **kwargs: object) -> object:
        if next(calls) in (3, 9):
            raise WorkerError("worker w1 is gone")
        return whole(*args, **kwargs)

    monkeypatch.setattr(engine.chain, broken, breaks)
    answers = run(engine, *PROMPTS)
    assert [answer.token_ids for answer in answers] == [alone(i) for i in range(len(PROMPTS))]


def test_a_chain_that_cannot_be_mended_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    engine.mover = ToyMover(engine.chain, (), 0)

    def breaks(step: Step, timeout_s: float, following: Following | None) -> Rows:
        raise WorkerError("worker w1 is gone")

    monkeypatch.setattr(engine.chain, "receive", breaks)
    with pytest.raises(WorkerError, match="w1 is gone"):
        run(engine, *PROMPTS)


def test_a_penalty_asks_for_whole_rows_and_changes_the_text() -> None:
    (plain,) = run(make(), (1, 2, 3))
    (penalized,) = run(make(sampling=Sampling(repetition_penalty=50.0)), (1, 2, 3))
    assert len(set(penalized.token_ids) | {1, 2, 3}) == len(penalized.token_ids) + 3
    assert plain.token_ids[:1] == penalized.token_ids[:1] or plain.token_ids[0] in (1, 2, 3)


# --- requests from other threads ----------------------------------------------------------------------------------


@contextmanager
def serving(engine: Engine) -> Iterator[Engine]:
    thread = Thread(target=engine.serve, args=(lambda: None,))
    thread.start()
    try:
        yield engine
    finally:
        engine.close()
        thread.join(10)
        assert not thread.is_alive()


def test_requests_come_at_any_time_from_any_thread() -> None:
    with serving(make(2, 2)) as engine:
        first = engine.submit(Prompt(0, "", PROMPTS[0]))
        assert first.result(10).token_ids == alone(0)
        tickets = [engine.submit(Prompt(i, "", ids)) for i, ids in enumerate(PROMPTS)]
        assert [ticket.result(10).token_ids for ticket in tickets] == [alone(i) for i in range(len(PROMPTS))]
    with pytest.raises(HyperlaneError, match="closed"):
        engine.submit(Prompt(0, "", PROMPTS[0]))


def test_each_request_has_settings_of_its_own() -> None:
    warm = Sampling(temperature=1.0, top_k=20, seed=5)
    with serving(make()) as engine:
        cold = engine.submit(Prompt(0, "", PROMPTS[0]))
        tickets = [engine.submit(Prompt(1, "", PROMPTS[1]), sampling=warm, limits=Limits(max_new_tokens=3))]
        tickets += [engine.submit(Prompt(1, "", PROMPTS[1]), sampling=Sampling(repetition_penalty=50.0))]
        assert cold.result(10).token_ids == alone(0)
        assert tickets[0].result(10).token_ids == alone(1, sampling=warm)[:3]
        assert tickets[1].result(10).token_ids == alone(1, sampling=Sampling(repetition_penalty=50.0))


def test_a_request_ends_when_it_is_cancelled_and_the_others_go_on() -> None:
    shown, cancelled = Event(), Event()

    def hold(index: int, piece: str) -> None:
        """The engine goes on once both are cancelled, so that no text is finished before."""
        shown.set()
        assert cancelled.wait(10)

    with serving(make(1, 1, limits=Limits(max_new_tokens=40))) as engine:
        long = engine.submit(Prompt(0, "", (1, 2, 3)), hold)
        waiting, last = engine.submit(Prompt(0, "", (1,))), engine.submit(Prompt(0, "", PROMPTS[0]))
        assert shown.wait(10)
        waiting.cancel()
        long.cancel()
        cancelled.set()
        found = [ticket.result(10) for ticket in (long, waiting, last)]
        long.cancel()  # nothing happens
    assert [text.finish_reason for text in found[:2]] == ["cancelled", "cancelled"]
    assert found[0].token_ids == alone(0, limits=Limits(max_new_tokens=40))[: len(found[0].token_ids)]
    assert found[1].token_ids == ()
    assert len(found[2].token_ids) == 40


def test_a_full_queue_refuses_and_a_long_list_of_prompts_waits_outside() -> None:
    engine = make(1, 1, queue=2)
    tickets = [engine.submit(Prompt(i, "", PROMPTS[i])) for i in range(2)]
    with pytest.raises(RequestError, match=r"2 requests wait already; .* generate.queue"):
        engine.submit(Prompt(2, "", PROMPTS[2]))
    for ticket in tickets:
        ticket.cancel()
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, engine.scheduler.waiting)

    answers = engine.run([Prompt(i, "", (i + 1,)) for i in range(20)], lambda index, piece: None, look)
    assert (len(answers), most) == (20, 2)


def test_a_step_that_fails_ends_its_requests_only() -> None:
    engine = make(2, 2, 64)
    engine.chain.fail_at = (1,)
    with serving(engine):
        tickets = [engine.submit(Prompt(i, "", PROMPTS[i])) for i in (0, 1)]
        with pytest.raises(StepError, match="no memory"):
            tickets[0].result(10)
        assert tickets[1].result(10).token_ids == alone(1)


def test_a_reader_that_fails_ends_its_request_only() -> None:
    def fail(index: int, piece: str) -> None:
        raise BrokenPipeError("nobody reads")

    with serving(make()) as engine:
        broken, whole = engine.submit(Prompt(0, "", PROMPTS[0]), fail), engine.submit(Prompt(1, "", PROMPTS[1]))
        with pytest.raises(BrokenPipeError):
            broken.result(10)
        assert whole.result(10).token_ids == alone(1)


def test_a_reader_that_fails_lets_a_waiting_prompt_in_while_others_go_on() -> None:
    engine, pieces = make(2, 2, 64), []

    def fail(index: int, piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:  # a step of each lane is in the chain
            raise BrokenPipeError("nobody reads")

    failing = engine.submit(Prompt(0, "", PROMPTS[0]), fail)
    tickets = [engine.submit(Prompt(i, "", PROMPTS[i])) for i in (1, 3)]
    with serving(engine):
        with pytest.raises(BrokenPipeError):
            failing.result(10)
        assert [ticket.result(10).token_ids for ticket in tickets] == [alone(1), alone(3)]


def test_nothing_moves_once_every_text_is_over() -> None:
    engine = make()
    engine.mover = mover = ToyMover(engine.chain, (), 0)
    run(engine, (1, 2, 3))
    assert mover.turns == mover.seen, "a turn a step, none to show the last token"


def test_results_may_come_late() -> None:
    engine = make(2, 2)
    engine.chain.late = {1, 2, 5}
    assert [answer.token_ids for answer in run(engine, *PROMPTS)] == [alone(i) for i in range(len(PROMPTS))]
