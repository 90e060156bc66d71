"""What is minimized over chains, by way of a solver of `Problem`s: a period, or a sum with the slowest parts in it.

A solver finds the chain of least total under caps on its bottlenecks. Lowering a cap raises the total: the best
trade between them is searched among the values that a bottleneck can take at all.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyperlane.partition.problem import Array, Bottleneck, Chain, Found, Problem, may_hold

Solve = Callable[[Problem, Sequence[float]], Found]

_SAME = 1e-12  # relative: what rounding makes of equal values
_EXACT_VALUES = 400_000  # up to so many stages their very times are the caps that are tried; else a grid
_GRID = 1.004  # one cap of the grid by the one before
_LARGE = 1e300


@dataclass(frozen=True, eq=False)
class Period:
    """max(total, slowest part): a step follows the one before when the chain is through, or its slowest part."""

    problem: Problem  # of one bottleneck

    def value(self, chain: Chain) -> float:
        return max(self.problem.total.of(chain), self.problem.bottlenecks[0].of(chain))

    def best(self, solve: Solve, solves: int, below: float = np.inf) -> Found:
        """A chain of least value, by bisection over the cap, and a bound on all chains'.

        Only chains whose value is less than `below` count; no other is looked for.
        """
        problem, bottleneck = self.problem, self.problem.bottlenecks[0]
        found = solve(problem, [below])
        best, bound = found.chain, min(found.bound, below)
        if best is None:
            return Found(None, bound)
        least, highest = problem.total.of(best), bottleneck.of(best)
        caps, exact = candidates(problem, bottleneck, min(least, bound), highest)
        caps = np.concatenate([[least], caps[caps > least], [highest]])
        low, high = _first_held(problem, caps, 0), len(caps) - 1
        if low:
            bound = max(bound, float(caps[min(low, high)] if exact else caps[low - 1]))
        reach = 1  # the best cap is often near the least that memory and time allow: look there first
        while low < high and solves > 1:
            solves -= 1
            middle = min((low + high) // 2, low + reach)
            reach *= 4
            found = solve(problem, [caps[middle]])
            if found.chain is not None and self.value(found.chain) < self.value(best) * (1 - _SAME):
                best = found.chain
            bound = max(bound, min(found.bound, float(caps[middle + exact])))
            if found.chain is not None and problem.total.of(found.chain) <= caps[middle]:
                high = middle
            else:
                low = middle + 1
        return Found(best, min(bound, self.value(best)))


@dataclass(frozen=True, eq=False)
class Sum:
    """total + the weighted slowest parts, one for each bottleneck."""

    problem: Problem
    weights: tuple[float, ...]

    def value(self, chain: Chain) -> float:
        slowest = [bottleneck.of(chain) for bottleneck in self.problem.bottlenecks]
        return self.problem.total.of(chain) + sum(w * s for w, s in zip(self.weights, slowest, strict=True))

    def best(self, solve: Solve, solves: int, below: float = np.inf) -> Found:
        """Best first over boxes of caps: a box's bound is its least total and its lower corner."""
        problem, count = self.problem, len(self.problem.bottlenecks)
        best: Chain | None = None
        floor = tuple(_floor(problem, i) if self.weights[i] else 0.0 for i in range(count))
        boxes: list[_Box] = [(0.0, 0, floor, (np.inf,) * count)]
        passed, made = np.inf, 1
        while boxes and solves > 0:
            bound, _, low, high = heapq.heappop(boxes)
            if bound >= below or (best is not None and bound >= self.value(best) * (1 - _SAME)):
                boxes.clear()
                passed = min(passed, bound)
                break
            solves -= 1
            found = solve(problem, high)
            if found.chain is None:
                passed = min(passed, found.bound)
                continue
            if best is None or self.value(found.chain) < self.value(best):
                best = found.chain
            corner = sum(w * x for w, x in zip(self.weights, low, strict=True))
            if found.bound < problem.total.of(found.chain) * (1 - 1e-9):  # what it dominates it only nearly does
                slowest = [b.of(found.chain) for b in problem.bottlenecks]
                passed = min(passed, found.bound + sum(w * x for w, x in zip(self.weights, slowest, strict=True)))
            for new_low, new_high in self._rest(found.chain, low, high):
                new_bound = found.bound + sum(w * x for w, x in zip(self.weights, new_low, strict=True))
                new_bound = max(bound, new_bound, found.bound + corner)
                if new_bound < self.value(best) * (1 - _SAME):
                    heapq.heappush(boxes, (new_bound, made, new_low, new_high))
                    made += 1
        if best is None:
            return Found(None, passed)
        open_bound = min((box[0] for box in boxes), default=np.inf)
        return Found(best, min(self.value(best), open_bound, passed))

    def _rest(
        self, chain: Chain, low: tuple[float, ...], high: tuple[float, ...]
    ) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """The box less what `chain` dominates: some bottleneck must be below its, in the upper or the lower half."""
        rest = []
        for i, bottleneck in enumerate(self.problem.bottlenecks):
            slowest = bottleneck.of(chain)
            caps, exact = (
                candidates(self.problem, bottleneck, low[i], slowest) if self.weights[i] else (np.empty(0), True)
            )
            if len(caps):
                middle, top = float(caps[(len(caps) - 1) // 2]), float(caps[-1]) if exact else slowest * (1 - 1e-9)
                rest.append((low, (*high[:i], middle, *high[i + 1 :])))
                if middle < top:
                    rest.append(((*low[:i], middle, *low[i + 1 :]), (*high[:i], top, *high[i + 1 :])))
            low = (*low[:i], max(low[i], slowest), *low[i + 1 :])
        return rest


Goal = Period | Sum
_Box = tuple[float, int, tuple[float, ...], tuple[float, ...]]  # bound, number, and the caps' least and most


def candidates(problem: Problem, bottleneck: Bottleneck, low: float, high: float) -> tuple[Array, bool]:
    """Caps above `low` and below `high`, ascending, and whether they are all values that a part can have there."""
    stages, L = bottleneck.stages, problem.layers
    if problem.workers * L**2 > _EXACT_VALUES:
        high = min(high, 1.01 * max(float(stages.sums_WL[:, -1].max()), float(bottleneck.wire_OWW.max())))
        steps = int(np.log(max(high, 1e-30) / max(low, high / 1e4, 1e-30)) / np.log(_GRID))
        return high * _GRID ** -np.arange(steps, 0.0, -1.0), False
    start, stop = np.triu_indices(L + 1, 1)
    values = [bottleneck.wire_OWW.ravel()]
    for w in range(problem.workers):
        stage_N = stages.sums_WL[w, stop] - stages.sums_WL[w, start] + stages.step_W[w]
        stage_N = stage_N + stages.first_W[w] * (start == 0) + stages.last_W[w] * (stop == L)
        receives, sends = np.append(bottleneck.decode_OW[:, w], 0.0), np.append(bottleneck.encode_OW[:, w], 0.0)
        coding = np.unique(receives[:, None] + sends[None, :])
        own = _distinct(stage_N)
        values.append((own[:, None] + coding[None, :]).ravel())
    all_values = np.concatenate(values)
    inside = all_values[(all_values > low * (1 + _SAME)) & (all_values < high * (1 - _SAME))]
    return _distinct(inside), True


def _floor(problem: Problem, index: int) -> float:
    """A value that no chain's bottleneck is below."""
    caps, exact = candidates(problem, problem.bottlenecks[index], 0.0, _LARGE)
    if not len(caps):
        return 0.0
    at = _first_held(problem, caps, index)
    return float(caps[min(at, len(caps) - 1)] if exact else caps[at - 1] if at else 0.0) * (1 - _SAME)


def _first_held(problem: Problem, caps: Array, index: int) -> int:
    """The place of the least cap on one bottleneck at which the workers may hold all layers."""
    low, high = 0, len(caps)
    while low < high:
        middle = (low + high) // 2
        all_caps = [np.inf] * len(problem.bottlenecks)
        all_caps[index] = float(caps[middle])
        if may_hold(problem, all_caps):
            high = middle
        else:
            low = middle + 1
    return low


def _distinct(values: Array) -> Array:
    """Ascending, and of values that differ by rounding only the largest."""
    ordered = np.sort(values)
    if not len(ordered):
        return ordered
    last = np.append(np.diff(ordered) > _SAME * np.abs(ordered[1:]), True)
    return np.asarray(ordered[last])
