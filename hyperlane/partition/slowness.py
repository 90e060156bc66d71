"""When a worker counts as slower than predicted, for long enough to act on it. No clock: the caller says the time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """`above`: times what was predicted; `after_s`: for so long; `pause_s`: between one answer and the next."""

    above: float
    after_s: float
    pause_s: float


@dataclass(slots=True)
class Slowness:
    """What is seen of workers. One that is slow stays so until it is half of the way back to what was predicted."""

    patience: Patience
    _since_s: dict[str, float] = field(default_factory=dict)  # by worker: when it was first seen slow
    _seen: dict[str, list[float]] = field(default_factory=dict)  # what it took since then, of what was predicted
    _not_before_s: float = float("-inf")

    def observe(self, now_s: float, ratios: Mapping[str, float]) -> None:
        """`ratios`: what steps took by now, of what was predicted; workers that had no step are left out."""
        for worker, ratio in ratios.items():
            slow = worker in self._since_s
            if ratio > (self._back if slow else self.patience.above):
                self._since_s.setdefault(worker, now_s)
                self._seen.setdefault(worker, []).append(ratio)
            elif slow:
                self._forget(worker)

    def lasting(self, now_s: float) -> dict[str, float]:
        """Workers that have been slow for long, and how slow, once it is time to act; empty before."""
        if now_s < self._not_before_s:
            return {}
        return {
            worker: median(self._seen[worker])
            for worker, since_s in self._since_s.items()
            if now_s - since_s >= self.patience.after_s and median(self._seen[worker]) > self.patience.above
        }

    def answered(self, now_s: float) -> None:
        """Something was done about it, or nothing can be: all counts anew after the pause."""
        self._not_before_s = now_s + self.patience.pause_s
        for worker in list(self._since_s):
            self._forget(worker)

    @property
    def _back(self) -> float:
        return (1 + self.patience.above) / 2

    def _forget(self, worker: str) -> None:
        del self._since_s[worker], self._seen[worker]
