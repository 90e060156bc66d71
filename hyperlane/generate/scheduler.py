"""Which tokens go through the chain next: lanes of slots, continuous batching, chunked prefill. No IO, no clock.

Slots are cut into lanes of neighbours. A lane's decode step carries the next token of each of its ready sequences and
waits for its result; with as many lanes as hops every worker has a lane to compute. Prompts go through in pieces, one
behind another, at most one between two decode steps, so that a long prompt delays the others by a piece at a time.

A sequence may send drafts behind its next token. A draft counts once the row before it gives that very token; behind
the first that does not, everything is forgotten, and the sequence goes on from there in the same slot.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from hyperlane.errors import RequestError
from hyperlane.generate.chunks import chunk_tokens
from hyperlane.generate.slots import Slots
from hyperlane.generate.step import Company, Fork, Owner, Step, Use
from hyperlane.transport.frame import Run

FORK_TOKENS = 16
"""A copy of fewer tokens than this saves less than it costs."""

Draw = Callable[[int, int], int | None]
"""(request, output row of the step) -> its next token, or None where the request ends with it."""


class Drafts(Protocol):
    """What may come next in a sequence, and whether trying it pays."""

    def draft(
        self, request: int, tokens: list[int], guess: Sequence[int], room: int, company: Company
    ) -> Sequence[int]:
        """At most `room` tokens behind `tokens` and the `guess` under way, in a step of this company."""

    def learn(self, request: int, accepted: int, rejected: bool) -> None: ...

    def forget(self, request: int) -> None: ...

    def observe(self, rows: int, seconds: float) -> None:
        """What a step of one sequence took that was alone in the chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a request that is over took."""

    request: int
    cached_tokens: int  # of its prompt, that a slot held already
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a chain: its workers, and the lanes that keep them busy."""

    hops: int
    lanes: int
    ragged: bool = False  # a step costs the workers one call, wherever its slots are


@dataclass(slots=True, eq=False)
class _Sequence:
    """`sent` positions are in the chain: of `tokens`, and of the `guess` behind them."""

    request: int
    tokens: list[int]  # prompt and answer
    most: int  # tokens in all
    slot: int = -1
    lane: int = -1
    sent: int = 0
    guess: deque[int] = field(default_factory=deque)
    branch: int = 0
    chunk: int = 0
    looked: bool = False  # for another slot to copy from
    cached: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def unsent(self) -> int:
        return len(self.tokens) - self.sent

    def account(self) -> Account:
        return Account(
            request=self.request,
            cached_tokens=self.cached,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
        )


@dataclass(slots=True, kw_only=True)
class Scheduler:
    """Admits, steps, finishes and cancels requests; `next_step` and `complete` are its dialogue with the chain."""

    slots: int
    lanes: int
    context: int
    prefill_chunk: int
    hops: int = 1
    reuse: bool = True  # what slots hold
    ragged: bool = False  # a step costs the workers one call, wherever its slots are
    drafts: Drafts | None = None
    _waiting: deque[_Sequence] = field(default_factory=deque)
    _running: dict[int, _Sequence] = field(default_factory=dict)  # by request, in order of admission
    _slots: Slots = field(init=False)
    _busy: list[bool] = field(init=False)  # by lane: its decode step is in the chain
    _stepped: list[int] = field(init=False)  # by lane: its last decode step
    _forks: deque[Fork] = field(default_factory=deque)  # in the chain
    _prefills_in_flight: int = 0
    _in_flight: int = 0
    _number: int = 0
    _prefilled_last: bool = False

    def __post_init__(self) -> None:
        self._slots = Slots(self.slots, self.lanes, ragged=self.ragged)
        self._busy, self._stepped = [False] * self.lanes, [0] * self.lanes

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    @property
    def waiting(self) -> int:
        """How many requests have no slot yet."""
        return len(self._waiting)

    @property
    def running(self) -> tuple[int, ...]:
        """The requests that have a slot, in order of admission."""
        return tuple(self._running)

    def submit(self, request: int, prompt: Sequence[int], max_new_tokens: int | None = None) -> None:
        """Queue a prompt of token ids; RequestError where it is empty or leaves no room for an answer."""
        check_length(len(prompt), self.context)
        room = self.context - len(prompt)
        most = len(prompt) + (room if max_new_tokens is None else min(room, max_new_tokens))
        self._waiting.append(_Sequence(request, list(prompt), most))

    def cancel(self, request: int) -> Account | None:
        """Forget a request: its slot is free at once, since the chain keeps the order of what was sent."""
        sequence = self._running.get(request)
        if sequence is not None:
            return self._end(sequence)
        sequence = next((waiting for waiting in self._waiting if waiting.request == request), None)
        if sequence is None:
            return None
        self._waiting.remove(sequence)
        return sequence.account()

    def next_step(self) -> Step | None:
        """The next message to send, or None while every sequence awaits a result."""
        self._admit()
        prefill, lane = self._ready_prefill(), self._ready_lane()
        if prefill is not None and (lane is None or not self._prefilled_last):
            return self._fork_step(prefill) or self._prefill_step(prefill)
        return self._ahead_step() if lane is None else self._decode_step(lane)

    def following(self, step: Step) -> Step | None:
        """What `next_step` will give once `step` is complete, if it completes first and no request ends by it.

        Without its tokens, one a row. None where that is not sure; for when `next_step` gave None.
        """
        if step.use is not Use.DECODE or self.drafts is not None:
            return None
        runs = []
        for run, owner in zip(step.runs, step.owners, strict=True):
            sequence = self._running.get(owner.request)
            if sequence is None or sequence.branch != owner.branch or len(sequence.tokens) + 1 >= sequence.most:
                return None
            runs.append(Run(run.slot, 1, sequence.sent, 1))
        if any(s.unsent == 1 and s.lane == step.lane for s in self._running.values()):
            return None  # another comes along
        if self._waiting and not self._slots.full:
            return None  # a prompt comes first: a request was cancelled since
        return Step(number=self._number + 1, lane=step.lane, use=Use.DECODE, owners=step.owners, runs=tuple(runs))

    def complete(self, step: Step, draw: Draw) -> list[Account]:
        """Take in a step's result: `draw` gives the token of each row that counts. Returns who is over by it."""
        self._returned(step)
        ended: list[Account] = []
        row = 0
        for run, owner in zip(step.runs, step.owners, strict=False):  # a fork has no run
            sequence = self._running.get(owner.request)
            if sequence is not None and sequence.branch == owner.branch and not self._confirm(sequence, run, row, draw):
                ended.append(self._end(sequence))
            row += run.outputs
        return ended

    def fail(self, step: Step) -> list[Account]:
        """A step that could not be computed: its slots hold nothing known. Returns who is over by that."""
        self._returned(step)
        unknown = {run.slot for run in step.runs} if step.fork is None else {step.fork.target}
        for fork in self._forks:
            if fork.source in unknown:
                unknown.add(fork.target)
        for slot in unknown:
            self._slots.forget(slot)
        return [self._end(sequence) for sequence in list(self._running.values()) if sequence.slot in unknown]

    def restart(self, shape: Shape | None = None) -> None:
        """Nothing that is in flight comes back: sequences are prefilled again as far as they got, and go on.

        `shape`: of the chain that follows, where it is another.
        """
        for sequence in reversed(list(self._running.values())):
            self._slots.release(sequence.slot)
            sequence.guess.clear()
            sequence.branch += 1
            self._waiting.appendleft(sequence)
        self._running.clear()
        self._forks.clear()
        if shape is not None:
            self.hops, self.lanes, self.ragged = shape.hops, shape.lanes, shape.ragged
        self._slots = Slots(self.slots, self.lanes, ragged=self.ragged)
        self._busy, self._stepped = [False] * self.lanes, [0] * self.lanes
        self._in_flight = self._prefills_in_flight = 0

    # --- sequences ------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        while self._waiting:
            sequence = self._waiting[0]
            slot = self._slots.take(sequence.tokens)
            if slot is None:
                return
            self._waiting.popleft()
            shared = self._slots.shared(slot, sequence.tokens) if self.reuse else 0
            sequence.slot, sequence.lane, sequence.chunk, sequence.looked = slot, self._slots.lane(slot), 0, False
            sequence.sent = sequence.cached = min(shared, len(sequence.tokens) - 1)  # the last gives the first row
            self._running[sequence.request] = sequence

    def _confirm(self, sequence: _Sequence, run: Run, row: int, draw: Draw) -> bool:
        """Take a run's rows in, up to the first wrong draft; False once the sequence is over."""
        over, accepted, rejected = False, 0, False
        for index in range(row, row + run.outputs):
            token = draw(sequence.request, index)
            over = token is None
            if token is None:
                break
            sequence.tokens.append(token)
            if not sequence.guess:
                continue
            rejected = sequence.guess.popleft() != token
            if rejected:
                sequence.guess.clear()
                sequence.branch += 1
                sequence.sent = len(sequence.tokens) - 1
                break
            accepted += 1
        sequence.accepted += accepted
        if self.drafts is not None and (accepted or rejected):
            self.drafts.learn(sequence.request, accepted, rejected)
        return not over

    def _end(self, sequence: _Sequence) -> Account:
        del self._running[sequence.request]
        self._slots.release(sequence.slot)
        if self.drafts is not None:
            self.drafts.forget(sequence.request)
        return sequence.account()

    # --- which step ------------------------------------------------------------------------------------------

    def _ready_lane(self) -> int | None:
        """Of the lanes that are not in the chain and have a token to send, the one that stepped longest ago."""
        if all(self._busy):
            return None
        lanes = {s.lane for s in self._running.values() if s.unsent == 1 and not self._busy[s.lane]}
        return min(lanes, key=self._stepped.__getitem__, default=None)

    def _ready_prefill(self) -> _Sequence | None:
        if self._prefills_in_flight > self.hops:  # one a worker, and one under way
            return None
        return next((s for s in self._running.values() if s.unsent > 1), None)

    def _fork_step(self, sequence: _Sequence) -> Step | None:
        """Copy what another slot holds of this prompt, where that is worth a message."""
        if sequence.looked or not self.reuse:
            return None
        sequence.looked = True
        source, shared = self._slots.source(sequence.tokens, besides=sequence.slot)
        count = min(shared, len(sequence.tokens) - 1)
        if count < sequence.sent + FORK_TOKENS:
            return None
        self._slots.write(sequence.slot, 0, self._slots.held[source][:count])
        sequence.sent = sequence.cached = count
        fork = Fork(source, sequence.slot, count)
        self._forks.append(fork)
        return self._step(sequence.slot, Use.FORK, [sequence], fork=fork)

    def _prefill_step(self, sequence: _Sequence) -> Step:
        if not sequence.chunk:
            sequence.chunk = chunk_tokens(sequence.unsent, self.hops, self.prefill_chunk)
        count = min(sequence.chunk, sequence.unsent)
        run = Run(sequence.slot, int(count == sequence.unsent), sequence.sent, count)
        self._prefills_in_flight += 1
        self._prefilled_last = True
        token_ids = sequence.tokens[sequence.sent : sequence.sent + count]
        return self._run_step(Use.PREFILL, [sequence], (run,), token_ids)

    def _decode_step(self, lane: int) -> Step:
        ready = [s for s in self._running.values() if s.unsent == 1 and s.lane == lane]
        ready.sort(key=lambda sequence: sequence.slot)
        runs, token_ids, drafting = [], [], 0
        for sequence in ready:
            guess = self._draft(sequence, Company(len(ready), drafting, self.ragged)) if self.drafts is not None else ()
            drafting += bool(guess)
            count = 1 + len(guess)
            runs.append(Run(sequence.slot, count, sequence.sent, count))
            token_ids.append(sequence.tokens[-1])
            token_ids.extend(guess)
        self._busy[lane] = True
        self._prefilled_last = False
        step = self._run_step(Use.DECODE, ready, tuple(runs), token_ids)
        self._stepped[lane] = step.number
        return step

    def _ahead_step(self) -> Step | None:
        """A worker has nothing to compute: drafts behind those under way, as if these were right."""
        if self.drafts is None or self._in_flight >= self.hops:
            return None
        for sequence in self._running.values():
            if sequence.unsent > 0:  # its lane is under way, and takes it along next
                continue
            guess = self._draft(sequence, Company(0, ragged=self.ragged))
            if guess:
                run = Run(sequence.slot, len(guess), sequence.sent, len(guess))
                return self._run_step(Use.AHEAD, [sequence], (run,), guess)
        return None

    def _draft(self, sequence: _Sequence, company: Company) -> list[int]:
        """Drafts behind what is sent, already part of the sequence's guess."""
        assert self.drafts is not None
        room = sequence.most - 1 - len(sequence.tokens) - len(sequence.guess)  # the last token is never sent
        if room <= 0:
            return []
        drafts = self.drafts.draft(sequence.request, sequence.tokens, sequence.guess, room, company)
        guess = list(islice(drafts, room))
        sequence.guess.extend(guess)
        sequence.drafted += len(guess)
        return guess

    # --- steps -----------------------------------------------------------------------------------------------

    def _run_step(self, use: Use, sequences: list[_Sequence], runs: tuple[Run, ...], token_ids: list[int]) -> Step:
        at = 0
        for sequence, run in zip(sequences, runs, strict=True):
            self._slots.write(run.slot, run.position, token_ids[at : at + run.count])
            sequence.sent += run.count
            at += run.count
        return self._step(runs[0].slot, use, sequences, runs=runs, token_ids=tuple(token_ids))

    def _step(
        self,
        slot: int,
        use: Use,
        sequences: list[_Sequence],
        *,
        runs: tuple[Run, ...] = (),
        token_ids: tuple[int, ...] = (),
        fork: Fork | None = None,
    ) -> Step:
        self._number += 1
        self._in_flight += 1
        owners = tuple([Owner(sequence.request, sequence.branch) for sequence in sequences])
        lane = self._slots.lane(slot)
        return Step(number=self._number, lane=lane, use=use, owners=owners, runs=runs, token_ids=token_ids, fork=fork)

    def _returned(self, step: Step) -> None:
        self._in_flight -= 1
        if step.use is Use.DECODE:
            self._busy[step.lane] = False
        elif step.use is Use.PREFILL:
            self._prefills_in_flight -= 1
        elif step.use is Use.FORK:
            self._forks.popleft()


def check_length(tokens: int, context: int) -> None:
    """Raise RequestError for a prompt that is empty or leaves no room for an answer."""
    if not tokens:
        raise RequestError("the prompt is empty; give at least one token")
    if tokens >= context:
        raise RequestError(
            f"the prompt has {tokens} tokens and the context holds {context}; shorten it or raise generate.context"
        )
