"""The scheduler against a chain that answers in order: nothing lost, doubled or given to another request."""

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane.errors import RequestError
from hyperlane.generate.scheduler import Scheduler, Step


def make(slots: int = 4, lanes: int = 2, context: int = 64, chunk: int = 4, prefills: int = 2) -> Scheduler:
    return Scheduler(slots, lanes, context, chunk, prefills)


class Chain:
    """Keeps what each slot has seen, as workers do, and checks every step against it."""

    def __init__(self) -> None:
        self.seen: dict[int, list[int]] = {}
        self.in_flight: deque[Step] = deque()

    def send(self, step: Step) -> None:
        tokens = iter(step.token_ids)
        for run in step.runs:
            keys = self.seen.setdefault(run.slot, [])
            assert run.position <= len(keys), "a position was skipped"
            del keys[run.position :]
            keys += [next(tokens) for _ in range(run.count)]
        assert next(tokens, None) is None
        assert sum(run.outputs for run in step.runs) == len(step.targets)
        self.in_flight.append(step)


def drive(scheduler: Scheduler, lengths: dict[int, int], cancels: set[int] = frozenset()) -> dict[int, list[int]]:
    """Run to the end; request r wants `lengths[r]` tokens, each being 1000 * r + its number."""
    chain, answers = Chain(), {request: [] for request in lengths}
    steps = 0
    while not scheduler.idle:
        while (step := scheduler.next_step()) is not None:
            chain.send(step)
        step = chain.in_flight.popleft()
        tokens: list[int | None] = []
        for request in step.targets:
            answers[request].append(1000 * request + len(answers[request]))
            tokens.append(None if len(answers[request]) >= lengths[request] else answers[request][-1])
        scheduler.complete(step, tokens)
        steps += 1
        if steps == 3:
            for request in cancels:
                scheduler.cancel(request)
        assert steps < 10_000
    return answers


def test_a_prompt_goes_in_chunks_and_only_the_last_wants_an_output() -> None:
    scheduler = make(prefills=9)
    scheduler.submit(0, range(10))
    steps = [scheduler.next_step() for _ in range(4)]
    assert [step and [(r.position, r.count, r.outputs) for r in step.runs] for step in steps] == [
        [(0, 4, 0)],
        [(4, 4, 0)],
        [(8, 2, 1)],
        None,
    ]


def test_prefills_in_flight_are_bounded() -> None:
    scheduler = make(prefills=2)
    scheduler.submit(0, range(20))
    assert [scheduler.next_step() is not None for _ in range(3)] == [True, True, False]


def test_lanes_step_one_behind_another() -> None:
    scheduler = make(slots=4, lanes=2, prefills=9)
    for request in range(4):
        scheduler.submit(request, [1, 2])
    first = [scheduler.next_step() for _ in range(4)]
    for step in first:
        assert step is not None
        scheduler.complete(step, [7])
    decode = [scheduler.next_step(), scheduler.next_step(), scheduler.next_step()]
    assert [step and (step.lane, [run.slot for run in step.runs]) for step in decode] == [
        (0, [0, 1]),
        (1, [2, 3]),
        None,
    ]


def test_a_long_prompt_delays_a_running_sequence_by_one_chunk_at_a_time() -> None:
    scheduler = make(slots=2, lanes=1, prefills=9)
    scheduler.submit(0, [1])
    step = scheduler.next_step()
    assert step is not None
    scheduler.complete(step, [5])
    scheduler.submit(1, range(40))
    kinds = []
    for _ in range(6):
        step = scheduler.next_step()
        assert step is not None
        kinds.append(step.decode)
        scheduler.complete(step, [5] * len(step.targets))
    assert all(a != b for a, b in pairwise(kinds))


@pytest.mark.parametrize(("prompt", "said"), [((), "empty"), (range(64), "64 tokens")])
def test_a_prompt_that_cannot_be_served_is_refused_at_the_door(prompt: tuple[int, ...], said: str) -> None:
    scheduler = make()
    with pytest.raises(RequestError, match=said):
        scheduler.submit(0, prompt)
    assert scheduler.idle


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_every_request_gets_its_own_tokens_whatever_the_order(data: st.DataObject) -> None:
    slots = data.draw(st.integers(1, 6))
    scheduler = Scheduler(
        slots,
        data.draw(st.integers(1, slots)),
        64,
        data.draw(st.integers(1, 9)),
        data.draw(st.integers(1, 4)),
    )
    prompts = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    lengths = {request: data.draw(st.integers(1, 12)) for request in range(len(prompts))}
    cancels = data.draw(st.sets(st.sampled_from(range(len(prompts)))))
    for request, length in enumerate(prompts):
        scheduler.submit(request, [request] * length)
    answers = drive(scheduler, lengths, cancels)
    for request, tokens in answers.items():
        wanted = [1000 * request + number for number in range(lengths[request])]
        # a cancelled request ends early; a step of it that was in flight may still have come back
        assert tokens == (wanted[: len(tokens)] if request in cancels else wanted)
