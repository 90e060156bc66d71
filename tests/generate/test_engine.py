"""The engine over a chain that computes a toy model: what comes out does not depend on how it was batched."""

from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane.artifacts import GeneratedText
from hyperlane.errors import TablesError
from hyperlane.generate.engine import CANDIDATES, Engine, Limits, Prompt, Rows
from hyperlane.generate.sampling import Sampling
from hyperlane.generate.scheduler import Scheduler, Step

VOCAB = 256
STOP = 0


class ToyChain:
    """Keeps each slot's tokens as keys and values; the logits of a row are drawn from all tokens up to it."""

    def __init__(self) -> None:
        self.slots: dict[int, list[int]] = {}
        self.results: deque[tuple[Step, Rows]] = deque()
        self.fail_at: int | None = None
        self.lacks_tables_at: tuple[int, ...] = ()
        self.rewired = 0

    def send(self, step: Step, *, whole_rows: bool) -> None:
        tokens, outputs = iter(step.token_ids), []
        for run in step.runs:
            keys = self.slots.setdefault(run.slot, [])
            del keys[run.position :]
            keys += [next(tokens) for _ in range(run.count)]
            assert len(keys) == run.position + run.count
            outputs += [keys[: len(keys) - back] for back in reversed(range(run.outputs))]
        self.results.append((step, self._rows(outputs, VOCAB if whole_rows else CANDIDATES)))

    def receive(self, step: Step, check: Callable[[], None]) -> Rows:
        check()
        sent, rows = self.results.popleft()
        assert sent is step
        if step.number == self.fail_at:
            raise RuntimeError("the chain broke")
        if step.number in self.lacks_tables_at:
            raise TablesError("the frame was made with other tables", "w1")
        return rows

    def rewire(self, mismatch: TablesError) -> None:
        assert mismatch.worker == "w1"
        self.rewired += 1
        self.results.clear()
        self.slots.clear()

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


def make(slots: int = 4, lanes: int = 2, chunk: int = 4, **kwargs: object) -> Engine:
    scheduler = Scheduler(slots, lanes, 64, chunk, 3)
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
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 40), st.booleans())
def test_tokens_do_not_depend_on_slots_lanes_or_chunks(slots: int, lanes: int, chunk: int, sampled: bool) -> None:
    kwargs = {"sampling": Sampling(temperature=1.0, top_k=20, seed=5)} if sampled else {}
    answers = run(make(slots, min(lanes, slots), chunk, **kwargs), *PROMPTS)
    assert [answer.token_ids for answer in answers] == [alone(i, **kwargs) for i in range(len(PROMPTS))]


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


def test_a_penalty_asks_for_whole_rows_and_changes_the_text() -> None:
    (plain,) = run(make(), (1, 2, 3))
    (penalized,) = run(make(sampling=Sampling(repetition_penalty=50.0)), (1, 2, 3))
    assert len(set(penalized.token_ids) | {1, 2, 3}) == len(penalized.token_ids) + 3
    assert plain.token_ids[:1] == penalized.token_ids[:1] or plain.token_ids[0] in (1, 2, 3)
