"""The scheduler against workers that answer in order: nothing lost, doubled or given to another request."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane.errors import RequestError
from hyperlane.generate.scheduler import Scheduler, Shape
from hyperlane.generate.step import Company, Step, Use
from tests.generate.toy import VOCABULARY, ToyWorkers, answer

CONTEXT = 64


def make(slots: int = 4, lanes: int = 2, **changes: object) -> Scheduler:
    plain = {"context": CONTEXT, "prefill_chunk": 4, "hops": 1, "reuse": False}
    return Scheduler(slots=slots, lanes=lanes, **{**plain, **changes})


def sent(scheduler: Scheduler) -> list[Step]:
    """All that it would send now."""
    return list(iter(scheduler.next_step, None))


def complete(scheduler: Scheduler, step: Step, token: int = 5) -> None:
    assert scheduler.complete(step, lambda request, row: token) == []


# --- single decisions ---------------------------------------------------------------------------------------------


def test_a_prompt_goes_in_chunks_and_only_the_last_wants_an_output() -> None:
    scheduler = make(hops=2)
    scheduler.submit(0, range(10))
    assert [[(r.position, r.count, r.outputs) for r in step.runs] for step in sent(scheduler)] == [
        [(0, 4, 0)],
        [(4, 4, 0)],
        [(8, 2, 1)],
    ]


def test_prefills_in_flight_are_bounded() -> None:
    scheduler = make(hops=1)
    scheduler.submit(0, range(20))
    assert len(sent(scheduler)) == 2


def test_lanes_step_one_behind_another() -> None:
    scheduler = make(hops=9)
    for request in range(4):
        scheduler.submit(request, [1, 2])
    for step in sent(scheduler):
        complete(scheduler, step, 7)
    decode = sent(scheduler)
    assert [(step.lane, [run.slot for run in step.runs]) for step in decode] == [(0, [0, 1]), (1, [2, 3])]
    complete(scheduler, decode[0])
    complete(scheduler, decode[1])
    assert [step.lane for step in sent(scheduler)] == [0, 1], "the one that stepped longest ago comes first"


def test_a_prompt_of_one_token_joins_its_lane_at_once() -> None:
    scheduler = make()
    for request in range(4):
        scheduler.submit(request, [request])
    assert [len(step.runs) for step in sent(scheduler)] == [2, 2]


def test_a_long_prompt_delays_a_running_sequence_by_one_chunk_at_a_time() -> None:
    scheduler = make(slots=2, lanes=1, hops=9)
    scheduler.submit(0, [1])
    complete(scheduler, scheduler.next_step())
    scheduler.submit(1, range(40))
    uses = []
    for _ in range(6):
        step = scheduler.next_step()
        uses.append(step.use)
        complete(scheduler, step)
    assert all(a != b for a, b in pairwise(uses))


def test_requests_wait_in_order_and_lanes_stay_even() -> None:
    scheduler = make(slots=8, lanes=4, hops=99)
    for request in range(20):
        scheduler.submit(request, [1, 2])
    steps = sent(scheduler)
    assert (scheduler.running, scheduler.waiting) == (tuple(range(8)), 12)
    assert sorted(step.lane for step in steps) == [0, 0, 1, 1, 2, 2, 3, 3]
    for request in (5, 2, 7):
        scheduler.cancel(request)
        sent(scheduler)
    assert scheduler.running == (0, 1, 3, 4, 6, 8, 9, 10)


@pytest.mark.parametrize(("prompt", "said"), [((), "empty"), (range(64), "64 tokens")])
def test_a_prompt_that_cannot_be_served_is_refused_at_the_door(prompt: Sequence[int], said: str) -> None:
    scheduler = make()
    with pytest.raises(RequestError, match=said):
        scheduler.submit(0, prompt)
    assert scheduler.idle


def test_the_next_step_is_foreseen_where_nothing_can_come_between() -> None:
    scheduler = make(lanes=1, hops=9)
    scheduler.submit(0, [1, 2], 4)
    scheduler.submit(1, [1, 2], 9)
    prefills = sent(scheduler)
    assert [scheduler.following(step) for step in prefills] == [None, None], "of prompts nothing is foreseen"
    complete(scheduler, prefills[0])
    first = scheduler.next_step()
    complete(scheduler, prefills[1])
    assert scheduler.following(first) is None, "the other one comes along"
    complete(scheduler, first)
    (both,) = sent(scheduler)
    following = scheduler.following(both)
    assert [(run.slot, run.position) for run in following.runs] == [(0, 4), (1, 3)]
    complete(scheduler, both, 6)
    assert scheduler.next_step() == replace(following, token_ids=(6, 6))
    assert scheduler.following(following) is None, "request 0 ends with its fourth token"
    scheduler.submit(2, [1, 2, 3])
    sent(scheduler)
    scheduler.cancel(0)
    assert scheduler.following(following) is None, "it is another company by now"


# --- what slots hold ----------------------------------------------------------------------------------------------

SYSTEM = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]


def test_the_same_beginning_is_prefilled_once_also_for_requests_that_come_together() -> None:
    scheduler, workers = make(reuse=True, hops=99, prefill_chunk=99), ToyWorkers()
    for request in range(4):
        scheduler.submit(request, [*SYSTEM, 50 + request, 60 + request])
    steps = sent(scheduler)
    for step in steps:
        workers.send(step)
    assert [step.fork.count for step in steps if step.fork] == [len(SYSTEM)] * 3
    assert workers.computed_tokens == len(SYSTEM) + 2 + 3 * 2
    for request in range(4):
        account = scheduler.cancel(request)
        assert account is not None
        assert account.cached_tokens == (len(SYSTEM) if request else 0)


def test_a_conversation_goes_on_in_its_slot_and_another_one_leaves_it_alone() -> None:
    scheduler = make(reuse=True, hops=1, prefill_chunk=99)
    for request, prompt in enumerate(([1, *SYSTEM], [2, *SYSTEM], [1, *SYSTEM, 8, 8], [2, *SYSTEM, 8, 8])):
        scheduler.submit(request, prompt)
        step = scheduler.next_step()
        assert [(run.slot, run.position) for run in step.runs] == [[(0, 0)], [(1, 0)], [(0, 21)], [(1, 21)]][request]
        complete(scheduler, step)
        scheduler.cancel(request)


def test_the_last_token_of_a_prompt_is_computed_even_if_a_slot_holds_it() -> None:
    scheduler = make(reuse=True)
    for _ in range(2):
        scheduler.submit(0, SYSTEM[:4])
        step = scheduler.next_step()
        complete(scheduler, step)
        scheduler.cancel(0)
    assert [(run.position, run.count, run.outputs) for run in step.runs] == [(3, 1, 1)]


def test_after_a_failed_step_nothing_is_taken_from_its_slot() -> None:
    scheduler = make(reuse=True, hops=99, prefill_chunk=99)
    scheduler.submit(0, [*SYSTEM, 1])
    scheduler.submit(1, [*SYSTEM, 2])
    first, fork, behind = sent(scheduler)
    assert (fork.use, behind.runs[0].position) == (Use.FORK, len(SYSTEM))
    assert [account.request for account in scheduler.fail(first)] == [0, 1], "who copied from it is lost too"
    assert scheduler.idle
    scheduler.fail(fork)
    assert scheduler.complete(behind, lambda request, row: pytest.fail("nobody's row")) == []
    scheduler.submit(2, [*SYSTEM, 3])
    assert scheduler.next_step().runs[0].position == 0


# --- any order ----------------------------------------------------------------------------------------------------


@dataclass
class Guesses:
    """Drafts that are right for a while, as a random number says; rightly counted or not is checked at the end."""

    random: Random
    most: int = 4
    learnt: int = 0

    def draft(self, request: int, tokens: list[int], guess: Sequence[int], room: int, company: Company) -> list[int]:
        right = answer([*tokens, *guess], self.most)
        wrong = self.random.randrange(self.most + 1)
        drafts = [token if i < wrong else self.random.randrange(VOCABULARY) for i, token in enumerate(right)]
        return drafts[: self.random.randrange(self.most + 1)]

    def learn(self, request: int, accepted: int, rejected: bool) -> None:
        assert accepted + rejected > 0
        self.learnt += accepted

    def forget(self, request: int) -> None: ...

    def observe(self, rows: int, seconds: float) -> None: ...


class Companies(Guesses):
    """Remembers the companies that it was asked for."""

    seen: tuple[Company, ...] = ()

    def draft(self, request: int, tokens: list[int], guess: Sequence[int], room: int, company: Company) -> list[int]:
        self.seen += (company,)
        return []


def test_drafts_are_weighed_by_the_chain_that_there_is_now() -> None:
    drafts = Companies(Random(0))
    scheduler = make(drafts=drafts)
    scheduler.submit(0, [1, 2])
    (prefill,) = sent(scheduler)
    complete(scheduler, prefill)
    sent(scheduler)
    assert drafts.seen == (Company(1),)
    scheduler.restart(Shape(2, 2, ragged=True))
    (prefill,) = sent(scheduler)
    complete(scheduler, prefill)
    sent(scheduler)
    assert Company(1, ragged=True) in drafts.seen[1:]
    assert all(company.ragged for company in drafts.seen[1:])


@dataclass
class Play:
    """Requests that come, end, are cancelled and fail in a random order."""

    scheduler: Scheduler
    random: Random
    workers: ToyWorkers = field(default_factory=ToyWorkers)
    wanted: dict[int, list[int]] = field(default_factory=dict)
    answers: dict[int, list[int]] = field(default_factory=dict)
    admitted: list[int] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    foreseen: int = 0

    def submit(self) -> None:
        request, shared = len(self.wanted), self.random.choice(((), SYSTEM[:7], SYSTEM))
        prompt = [*shared, *(self.random.randrange(3) for _ in range(self.random.randrange(1, 12)))]
        count = self.random.randrange(1, 14)
        self.wanted[request] = answer(prompt, min(count, CONTEXT - len(prompt)))
        self.answers[request] = []
        self.scheduler.submit(request, prompt, count)

    def cancel(self) -> None:
        request = self.random.randrange(len(self.wanted))
        if self.scheduler.cancel(request) is not None:
            self.lost.add(request)

    def send(self) -> None:
        step = self.scheduler.next_step()
        for request in self.scheduler.running:
            if request not in self.admitted:
                self.admitted.append(request)
        if step is not None:
            self.workers.send(step)

    def receive(self) -> None:
        """Now and then what follows is asked for before: it must come true."""
        following = self.foresee() if self.random.random() < 0.5 else None
        if not self.workers.in_flight:
            return
        step, tokens = self.workers.in_flight.popleft()

        def draw(request: int, row: int) -> int | None:
            assert request not in self.ended | self.lost, "a token for a request that is over"
            found = self.answers[request]
            found.append(tokens[row])
            return None if len(found) == len(self.wanted[request]) else found[-1]

        for account in self.scheduler.complete(step, draw):
            self.ended.add(account.request)
            assert account.accepted_tokens <= account.drafted_tokens
            assert following is None, "it was sure that no request ends"
        if following is not None:
            self.foreseen += 1
            sent = self.scheduler.next_step()
            assert sent is not None
            assert replace(sent, token_ids=()) == following
            assert sent.token_ids == tuple(tokens)
            self.workers.send(sent)

    def foresee(self) -> Step | None:
        for _ in range(20):  # an unlimited number of drafts ahead is not waited for
            self.send()
        if self.scheduler.drafts is not None or not self.workers.in_flight:
            return None
        return self.scheduler.following(self.workers.in_flight[0][0])

    def fail(self) -> None:
        if self.workers.in_flight:
            step, _ = self.workers.in_flight.popleft()
            self.lost |= {account.request for account in self.scheduler.fail(step)}

    def restart(self) -> None:
        self.workers.in_flight.clear()
        self.workers.keys.clear()
        hops, lanes = self.random.randint(1, 4), self.random.randint(1, self.scheduler.slots)
        self.scheduler.restart(self.random.choice((None, Shape(hops, lanes, self.random.random() < 0.5))))


@settings(deadline=None, max_examples=300)
@given(random=st.randoms(use_true_random=False), data=st.data())
def test_every_request_gets_its_own_tokens_whatever_the_order(random: Random, data: st.DataObject) -> None:
    slots = data.draw(st.integers(1, 6))
    scheduler = make(
        slots,
        data.draw(st.integers(1, slots)),
        prefill_chunk=data.draw(st.integers(1, 20)),
        hops=data.draw(st.integers(1, 4)),
        reuse=data.draw(st.booleans()),
        ragged=data.draw(st.booleans()),
        drafts=Guesses(random) if data.draw(st.booleans()) else None,
    )
    play = Play(scheduler, random)
    likely = [play.submit, play.send, play.send, play.send, play.receive, play.receive]
    rare = [play.cancel, play.fail, play.restart] if data.draw(st.booleans()) else [play.cancel]
    play.submit()
    for _ in range(data.draw(st.integers(0, 150))):
        random.choice(rare if random.random() < 0.04 else likely)()
        assert len(scheduler.running) <= slots
    for _ in range(10_000):
        play.send()
        play.receive()
        if scheduler.idle and not play.workers.in_flight:
            break
    assert scheduler.idle
    assert play.ended | play.lost == set(play.wanted)
    for request in play.ended:
        assert play.answers[request] == play.wanted[request]
    for request in play.lost:
        assert play.answers[request] == play.wanted[request][: len(play.answers[request])]
    assert play.admitted == sorted(play.admitted), "first come, first served"
