"""Simulated time: what is to happen when."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Clock:
    """`now_s` advances from one event to the next; events of one moment happen in the order in which they were set."""

    now_s: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + seconds, next(self._order), act))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
