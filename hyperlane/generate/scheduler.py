"""Which tokens go through the chain next: lanes of slots, continuous batching, chunked prefill. No IO, no clock.

Slots are cut into lanes of neighbours. A lane's decode step carries one token of each of its ready sequences and
waits for its result; with as many lanes as hops every worker has a lane to compute. Prompts go through in chunks,
one behind another, at most one between two decode steps, so that a long prompt delays the others by a chunk at a time.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from hyperlane.errors import RequestError
from hyperlane.transport.frame import Run


@dataclass(frozen=True, slots=True)
class Step:
    """One pass of one lane: token rows for the chain, and whose logits come back, in that order."""

    number: int
    lane: int
    runs: tuple[Run, ...]
    token_ids: tuple[int, ...]
    targets: tuple[int, ...]  # request of each output
    decode: bool


@dataclass(slots=True)
class _Sequence:
    request: int
    prompt: tuple[int, ...]
    slot: int
    sent: int = 0  # positions that are in the chain
    next_token: int | None = None  # sampled, not yet sent


@dataclass(slots=True)
class Scheduler:
    """Admits, steps, finishes and cancels requests; `next_step` and `complete` are its dialogue with the chain."""

    slots: int
    lanes: int
    context: int
    prefill_chunk: int
    max_prefills_in_flight: int
    _waiting: deque[tuple[int, tuple[int, ...]]] = field(default_factory=deque)
    _running: dict[int, _Sequence] = field(default_factory=dict)  # by request, in order of admission
    _busy_lanes: set[int] = field(default_factory=set)
    _prefills_in_flight: int = 0
    _next_number: int = 0
    _prefilled_last: bool = False

    def submit(self, request: int, prompt: Sequence[int]) -> None:
        """Queue a prompt of token ids; RequestError where it is empty or leaves no room for an answer."""
        check_length(len(prompt), self.context)
        self._waiting.append((request, tuple(prompt)))

    def cancel(self, request: int) -> None:
        """Forget a request: its slot is free at once, since the chain keeps the order of what was sent."""
        self._running.pop(request, None)
        self._waiting = deque(item for item in self._waiting if item[0] != request)

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def next_step(self) -> Step | None:
        """The next pass to send, or None while every sequence awaits a result."""
        self._admit()
        decode, prefill = self._ready_lane(), self._ready_prefill()
        if prefill is not None and (decode is None or not self._prefilled_last):
            return self._prefill_step(prefill)
        return None if decode is None else self._decode_step(decode)

    def complete(self, step: Step, token_ids: Sequence[int | None]) -> None:
        """Take in a step's result: for each of its targets the next token, or None where the request is finished."""
        if step.decode:
            self._busy_lanes.discard(step.lane)
        else:
            self._prefills_in_flight -= 1
        for request, token_id in zip(step.targets, token_ids, strict=True):
            sequence = self._running.get(request)
            if sequence is None:  # cancelled meanwhile
                continue
            if token_id is None:
                del self._running[request]
            else:
                sequence.next_token = token_id

    def _admit(self) -> None:
        while self._waiting:
            slot = self._free_slot()
            if slot is None:
                return
            request, prompt = self._waiting.popleft()
            self._running[request] = _Sequence(request, prompt, slot)

    def _free_slot(self) -> int | None:
        """The lowest free slot of the lane with the fewest sequences: lanes stay even and their rows adjacent."""
        taken = {sequence.slot for sequence in self._running.values()}
        free = [slot for slot in range(self.slots) if slot not in taken]
        load = [sum(self._lane(slot) == lane for slot in taken) for lane in range(self.lanes)]
        return min(free, key=lambda slot: (load[self._lane(slot)], slot), default=None)

    def _lane(self, slot: int) -> int:
        return slot * self.lanes // self.slots

    def _ready_lane(self) -> int | None:
        """The free lane whose longest-waiting sequence was admitted first among those ready to decode."""
        for sequence in self._running.values():
            lane = self._lane(sequence.slot)
            if sequence.next_token is not None and lane not in self._busy_lanes:
                return lane
        return None

    def _ready_prefill(self) -> _Sequence | None:
        if self._prefills_in_flight >= self.max_prefills_in_flight:
            return None
        return next((s for s in self._running.values() if s.sent < len(s.prompt)), None)

    def _prefill_step(self, sequence: _Sequence) -> Step:
        start, stop = sequence.sent, min(sequence.sent + self.prefill_chunk, len(sequence.prompt))
        last = stop == len(sequence.prompt)
        sequence.sent = stop
        self._prefills_in_flight += 1
        self._prefilled_last = True
        run = Run(slot=sequence.slot, outputs=int(last), position=start, count=stop - start)
        targets = (sequence.request,) if last else ()
        return self._step(self._lane(sequence.slot), (run,), sequence.prompt[start:stop], targets, decode=False)

    def _decode_step(self, lane: int) -> Step:
        ready = [s for s in self._running.values() if s.next_token is not None and self._lane(s.slot) == lane]
        ready.sort(key=lambda sequence: sequence.slot)
        runs, token_ids = [], []
        for sequence in ready:
            assert sequence.next_token is not None
            runs.append(Run(slot=sequence.slot, outputs=1, position=sequence.sent, count=1))
            token_ids.append(sequence.next_token)
            sequence.sent, sequence.next_token = sequence.sent + 1, None
        self._busy_lanes.add(lane)
        self._prefilled_last = False
        return self._step(lane, tuple(runs), tuple(token_ids), tuple(s.request for s in ready), decode=True)

    def _step(
        self,
        lane: int,
        runs: tuple[Run, ...],
        token_ids: tuple[int, ...],
        targets: tuple[int, ...],
        *,
        decode: bool,
    ) -> Step:
        self._next_number += 1
        return Step(self._next_number, lane, runs, token_ids, targets, decode)


def check_length(tokens: int, context: int) -> None:
    """Raise RequestError for a prompt that is empty or leaves no room for an answer."""
    if not tokens:
        raise RequestError("the prompt is empty; give at least one token")
    if tokens >= context:
        raise RequestError(
            f"the prompt has {tokens} tokens and the context holds {context}; shorten it or raise generate.context"
        )
