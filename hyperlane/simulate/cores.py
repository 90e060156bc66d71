"""How the workers of one machine share its cores, each within its CPU quota.

A worker computes one step at a time, in the order in which steps come. While more threads compute than there are
cores all slow down alike. A quota is a budget of `share` of each period: a short step runs at full speed, and who has
spent the budget stands still until the next period begins.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from hyperlane.simulate.clock import Clock

PERIOD_S = 0.1
"""Of a CPU quota, as Linux sets it unless told otherwise."""
_NOTHING_S = 1e-9  # work or budget that only rounding left


class Work(NamedTuple):
    """One step: `seconds` at full speed, `crowded` times as many while others of the machine compute."""

    seconds: float
    crowded: float
    done: Callable[[], None]


@dataclass(slots=True, eq=False)
class Seat:
    """A worker's place on its machine."""

    threads: int
    share: float
    queue: "deque[Work]" = field(default_factory=deque)
    left_s: float = 0.0  # of the step that is computed, at full speed
    budget_s: float = math.inf
    period: int = -1
    rate: float = 0.0  # share of its threads' time
    crowded: float = 1.0

    @property
    def limited(self) -> bool:
        return self.share < 1


@dataclass(slots=True, eq=False)
class Cores:
    """One machine; `count` 0 means that its workers do not get in each other's way."""

    clock: Clock
    count: int
    phase: float | None = None  # of the quotas' periods when all begins, 0 to 1; None: where the quota is felt least
    _busy: list[Seat] = field(default_factory=list)
    _since_s: float = 0.0
    _turn: int = 0

    def submit(self, seat: Seat, work: Work) -> None:
        """`work.done` is called once `seat` has computed what was submitted before and this."""
        seat.queue.append(work)
        if len(seat.queue) == 1:
            self._advance()
            seat.left_s = work.seconds
            self._busy.append(seat)
            self._settle()

    def _advance(self) -> None:
        """Work that was done since the last event."""
        passed_s, self._since_s = self.clock.now_s - self._since_s, self.clock.now_s
        for seat in self._busy:
            seat.left_s -= seat.rate * passed_s / seat.crowded
            if seat.limited:
                seat.budget_s -= seat.rate * passed_s

    def _settle(self) -> None:
        """New rates, and when something changes next."""
        for seat in self._busy:
            if seat.limited and (period := self._period(seat)) != seat.period:
                seat.period, seat.budget_s = period, seat.share * PERIOD_S
        running = [seat for seat in self._busy if seat.budget_s > _NOTHING_S]
        threads = sum(seat.threads for seat in running)
        rate = min(1.0, self.count / threads) if self.count and threads else 1.0
        next_s = math.inf
        for seat in self._busy:
            seat.rate = rate if seat.budget_s > _NOTHING_S else 0.0
            seat.crowded = seat.queue[0].crowded if len(running) > 1 and self.count else 1.0
            left_s = max(0.0, seat.left_s) * seat.crowded
            if seat.rate:
                next_s = min(next_s, left_s / rate, max(0.0, seat.budget_s) / rate)
            if seat.limited and seat.budget_s < left_s:
                next_s = min(next_s, self._until_next(seat))
        self._turn += 1
        if self._busy:
            turn = self._turn
            self.clock.after(next_s, lambda: self._event(turn))

    def _event(self, turn: int) -> None:
        if turn != self._turn:  # something else happened before
            return
        self._advance()
        finished = [seat for seat in self._busy if seat.left_s <= _NOTHING_S]
        follow = []
        for seat in finished:
            follow.append(seat.queue.popleft().done)
            if seat.queue:
                seat.left_s = seat.queue[0].seconds
            else:
                self._busy.remove(seat)
        self._settle()
        for act in follow:
            act()

    def _period(self, seat: Seat) -> int:
        return math.floor((self.clock.now_s + self._phase_s(seat)) / PERIOD_S + 1e-9)

    def _until_next(self, seat: Seat) -> float:
        return (self._period(seat) + 1) * PERIOD_S - self._phase_s(seat) - self.clock.now_s

    def _phase_s(self, seat: Seat) -> float:
        """Where in its period a quota is when all begins; in the middle of those where it is not cut short, if free."""
        return PERIOD_S * ((1 - seat.share) / 2 if self.phase is None else self.phase)
