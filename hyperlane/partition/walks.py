"""Many workers: a lower bound and a good chain, both by walks.

A walk is a chain that may come to a worker again, so the best one is found layer by layer in time W^2 L: a bound.
Every visit costs a worker's price and each price is taken off once, which leaves true chains no dearer; raising the
prices of those visited too often and lowering the others' lifts the bound. The same recursion, remembering for
each of its paths who was visited, gives chains; `polish` betters them.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlane.partition.polish import polish
from hyperlane.partition.problem import (
    Array,
    Bottleneck,
    Chain,
    Found,
    Problem,
    Room,
    Stages,
    Total,
    any_window,
    may_hold,
    windows,
)

CLOSE = 0.002  # a chain so near its bound is good enough
CORE = 160  # workers among which a first chain is sought


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """When to stop: rounds of prices, and seconds."""

    rounds: int = 400
    seconds: float = 2.0


def search(problem: Problem, caps: Sequence[float], effort: Effort, start: Chain | None = None) -> Found:
    """A chain of small total within `caps`, or None, and a bound that no such chain is below."""
    if not may_hold(problem, caps):
        return Found(None, np.inf)
    return _Prices(problem, caps, effort, start).run()


class _Prices:
    """Raises and lowers prices among a core of workers; the others join when a walk would rather take them."""

    def __init__(self, problem: Problem, caps: Sequence[float], effort: Effort, start: Chain | None) -> None:
        self.problem, self.caps, self.rounds = problem, caps, effort.rounds
        self.until_s = time.monotonic() + effort.seconds
        self.best = start
        self.best_total = np.inf if start is None else problem.total.of(start)
        self.keep, self.net, self.bound = np.arange(problem.workers), _Net(problem, caps), 0.0
        self.price_W, worth_W = self.net.first_prices()
        self.core = np.sort(np.argsort(-worth_W)[:CORE])

    def run(self) -> Found:
        while self.rounds > 0:
            self._try()
            core_bound = self._settle()
            self._try()
            lowest, through_W = self.net.through(self.price_W[self.keep])
            self.bound = max(self.bound, min(lowest, self.best_total))
            if self._done() or not np.isfinite(lowest):
                break
            self._leave_out(through_W)
            if not self._join(through_W, core_bound):
                break
        return Found(self.best, min(self.bound, self.best_total) if np.isfinite(lowest) else self.best_total)

    def _done(self) -> bool:
        near = self.best is not None and self.best_total - self.bound <= CLOSE * self.best_total
        return near or time.monotonic() > self.until_s

    def _settle(self) -> float:
        """Prices of the core that lift its own bound as far as it goes; returns it."""
        net = _Net(restricted(self.problem, self.core), self.caps)
        best_W = price_W = self.price_W[self.core]
        bound, step, since, slope_W = 0.0, 1.0, 0, np.zeros(len(self.core))
        while self.rounds > 0 and step > 1e-3 and time.monotonic() < self.until_s:
            self.rounds -= 1
            lowest, walk = net.walk(price_W)
            if walk is None:
                return np.inf
            if lowest > bound + 1e-5 * abs(bound):
                bound, best_W, since = lowest, price_W, 0
            else:
                since += 1
            if self.best is not None and self.best_total - bound <= CLOSE / 2 * self.best_total:
                break
            if since >= 5:
                step, since, price_W = step / 2, 0, best_W
            excess_W = np.bincount(walk, minlength=len(self.core)) - 1.0
            slope_W = 0.6 * slope_W + excess_W  # walks jump from few workers to few others: follow their mean
            moved_W = np.where((slope_W < 0) & (price_W == 0), 0.0, slope_W)
            norm = float((moved_W**2).sum())
            if norm == 0:
                break
            goal = self.best_total if self.best is not None else 1.1 * lowest
            price_W = np.maximum(0.0, price_W + step * max(goal - lowest, 1e-3 * abs(goal)) / norm * moved_W)
        self.price_W[self.core] = best_W
        return bound

    def _try(self) -> None:
        """Look for a better chain in the core."""
        found = _Net(restricted(self.problem, self.core), self.caps).chain(self.price_W[self.core])
        if found is None:
            return
        named = Chain(tuple(int(self.core[w]) for w in found.workers), found.stops, found.options)
        better = polish(self.problem, self.caps, named)
        if better is not None and self.problem.total.of(better) < self.best_total:
            self.best, self.best_total = better, self.problem.total.of(better)

    def _leave_out(self, through_W: Array) -> None:
        """Whoever makes any walk dearer than the chain that is known is in no better chain."""
        stay = through_W < self.best_total
        if stay.any() and not stay.all():
            self.price_W[self.keep[~stay]] = 0.0
            self.core = np.intersect1d(self.core, self.keep[stay])
            self.keep = self.keep[stay]
            self.net = _Net(restricted(self.problem, self.keep), self.caps)

    def _join(self, through_W: Array, core_bound: float) -> bool:
        """Those who would lower the core's bound most join it; False where nobody would."""
        stay = through_W[through_W < self.best_total] if len(through_W) != len(self.keep) else through_W
        outside = ~np.isin(self.keep, self.core)
        eager = np.flatnonzero(outside & (stay < core_bound * (1 - 1e-4)))
        if not len(eager):
            return False
        eager = eager[np.argsort(stay[eager])[:CORE]]
        self.core = np.sort(np.concatenate([self.core, self.keep[eager]]))
        return True


def restricted(problem: Problem, keep: NDArray[np.intp]) -> Problem:
    """The problem with these workers only, by their places in `keep`."""

    def stages(whole: Stages) -> Stages:
        return Stages(
            layer_WL=whole.layer_WL[keep],
            step_W=whole.step_W[keep],
            first_W=whole.first_W[keep],
            last_W=whole.last_W[keep],
        )

    pairs = np.ix_(np.arange(problem.options), keep, keep)
    total, room = problem.total, problem.room
    bottlenecks = tuple(
        Bottleneck(
            stages=stages(b.stages),
            encode_OW=b.encode_OW[:, keep],
            decode_OW=b.decode_OW[:, keep],
            wire_OWW=b.wire_OWW[pairs],
        )
        for b in problem.bottlenecks
    )
    return Problem(
        total=Total(
            stages=stages(total.stages),
            link_OWW=total.link_OWW[pairs],
            enter_W=total.enter_W[keep],
            leave_W=total.leave_W[keep],
        ),
        bottlenecks=bottlenecks,
        room=Room(layer_L=room.layer_L, first=room.first, last=room.last, any=room.any, has_W=room.has_W[keep]),
        hops=problem.hops,
    )


class _Net:
    """The workers as a walk sees them: each link with its best option, coding as cheap as any option has it."""

    def __init__(self, problem: Problem, caps: Sequence[float]) -> None:
        self.problem, self.total, self.caps = problem, problem.total, caps
        W, L = problem.workers, problem.layers
        usable = np.ones(self.total.link_OWW.shape, bool)
        for cap, bottleneck in zip(caps, problem.bottlenecks, strict=True):
            usable &= bottleneck.wire_OWW <= cap * (1 + 1e-12)
        self.link_OWW = np.where(usable, self.total.link_OWW, np.inf)
        self.option_WW = np.argmin(self.link_OWW, axis=0)
        self.link_WW = self.link_OWW.min(axis=0)
        np.fill_diagonal(self.link_WW, np.inf)
        everyone = np.arange(W)
        receive = [b.decode_OW.min(axis=0) for b in problem.bottlenecks]
        send = [b.encode_OW.min(axis=0) for b in problem.bottlenecks]
        # The last shard sends nothing that is coded: its stop is L, where only `receive` counts.
        self.first_WL = windows(problem, caps, everyone, send, first=True)
        self.first_WL[:, L] = windows(problem, caps, everyone, [0 * s for s in send], first=True)[:, L]
        self.window_WL = windows(
            problem, caps, everyone, [r + s for r, s in zip(receive, send, strict=True)], first=False
        )
        self.window_WL[:, L] = windows(problem, caps, everyone, receive, first=False)[:, L]
        self.sums_LW = np.ascontiguousarray(self.total.stages.sums_WL.T)
        self.enter_W = self.total.enter_W + self.total.stages.first_W + self.total.stages.step_W
        self.leave_W = self.total.leave_W + self.total.stages.last_W
        self.buffer_WW = np.empty((W, W))

    def first_prices(self) -> tuple[Array, Array]:
        """Prices, and how much each worker is worth (negative for most), as if each came with its cheapest link.

        At a price a layer, a worker is worth what its best range earns over its cost; the right price a layer is
        where the bound is largest.
        """
        W, L = self.problem.workers, self.problem.layers
        come_W = np.minimum(self.link_WW.min(axis=0), self.total.enter_W) + self.total.stages.step_W
        count_WL = np.arange(L + 1) - any_window(self.problem, self.caps)
        # The cheapest cost of n layers on each worker: any n neighbours, over all places.
        cost_WN = np.full((W, L + 1), np.inf)
        for n in range(1, L + 1):
            spans_WM = self.sums_LW[n:].T - self.sums_LW[:-n].T
            cost_WN[:, n] = np.where(count_WL[:, n:] >= n, spans_WM, np.inf).min(axis=1) + come_W
        counts = np.arange(L + 1)

        def worth(rate: float) -> Array:
            return np.asarray((rate * counts[1:] - cost_WN[:, 1:]).max(axis=1))

        per_layer = cost_WN[:, 1:] / counts[1:]
        finite = per_layer[np.isfinite(per_layer)]
        low, high = float(finite.min()), float(finite.max()) * 2
        for _ in range(60):  # L * rate - sum of worths is concave in the rate
            a, b = low + (high - low) / 3, high - (high - low) / 3
            if L * a - np.maximum(0, worth(a)).sum() < L * b - np.maximum(0, worth(b)).sum():
                low = a
            else:
                high = b
        worth_W = worth((low + high) / 2)
        return np.maximum(0.0, worth_W), worth_W

    def walk(self, price_W: Array) -> tuple[float, NDArray[np.intp] | None]:
        """The bound at these prices, and the workers of the walk that has it; (inf, None) where there is none."""
        L = self.problem.layers
        cost_LW, arrive_LW = self._recursion(price_W)
        ends_W = cost_LW[L] + self.leave_W
        last = int(np.argmin(ends_W))
        if not np.isfinite(ends_W[last]):
            return np.inf, None
        walk, stop = [last], L
        while True:
            w = walk[-1]
            start = self._start(w, stop, cost_LW, arrive_LW, price_W)
            if start == 0:
                break
            walk.append(int(np.argmin(cost_LW[start] + self.link_WW[:, w])))
            stop = start
        return float(ends_W[last]) - float(price_W.sum()), np.array(walk)

    def _recursion(self, price_W: Array) -> tuple[Array, Array]:
        """cost_LW: so many layers placed, the last of them here. arrive_LW: the link to here included."""
        L, W = self.problem.layers, self.problem.workers
        cost_LW, arrive_LW, key_LW = (np.full((L + 1, W), np.inf) for _ in range(3))
        visit_W = price_W + self.total.stages.step_W
        starts_L = np.arange(L + 1)[:, None]
        for stop in range(1, L + 1):
            first_W = np.where(self.first_WL[:, stop] == 0, self.enter_W + price_W + self.sums_LW[stop], np.inf)
            low_W = np.maximum(self.window_WL[:, stop], 1)
            low = int(low_W.min())
            if low < stop:
                inside = starts_L[low:stop] >= low_W
                least_W = np.where(inside, key_LW[low:stop], np.inf).min(axis=0)
                cost_LW[stop] = np.minimum(first_W, least_W + self.sums_LW[stop] + visit_W)
            else:
                cost_LW[stop] = first_W
            if stop < L:
                np.add(self.link_WW, cost_LW[stop][:, None], out=self.buffer_WW)
                self.buffer_WW.min(axis=0, out=arrive_LW[stop])
                key_LW[stop] = arrive_LW[stop] - self.sums_LW[stop]
        return cost_LW, arrive_LW

    def through(self, price_W: Array) -> tuple[float, Array]:
        """The bound at these prices, and for each worker the bound of the walks that come to it."""
        L, W = self.problem.layers, self.problem.workers
        cost_LW, _ = self._recursion(price_W)
        rest_LW, stage_LW = np.full((L + 1, W), np.inf), np.full((L + 1, W), np.inf)
        rest_LW[L] = self.leave_W
        visit_W = price_W + self.total.stages.step_W
        stops_L = np.arange(L + 1)
        for placed in range(L - 1, 0, -1):
            high = int((self.window_WL <= placed).sum(axis=1).max())  # windows ascend: the last stop from here
            inside = (placed >= self.window_WL[:, placed + 1 : high].T) & (stops_L[placed + 1 : high, None] > placed)
            if inside.any():
                values = np.where(inside, rest_LW[placed + 1 : high] + self.sums_LW[placed + 1 : high], np.inf)
                stage_LW[placed] = values.min(axis=0) - self.sums_LW[placed] + visit_W
            np.add(self.link_WW, stage_LW[placed][None, :], out=self.buffer_WW)
            self.buffer_WW.min(axis=1, out=rest_LW[placed])
        through_W = (cost_LW + rest_LW).min(axis=0) - float(price_W.sum())
        return float(through_W.min()), through_W

    def _start(self, w: int, stop: int, cost_LW: Array, arrive_LW: Array, price_W: Array) -> int:
        """Where the stage that ends at `stop` began, in the best walk there."""
        low = max(int(self.window_WL[w, stop]), 1)
        values = arrive_LW[low:stop, w] - self.sums_LW[low:stop, w]
        if len(values):
            at = int(np.argmin(values))
            visit = float(price_W[w] + self.total.stages.step_W[w])
            if values[at] + self.sums_LW[stop, w] + visit <= cost_LW[stop, w] * (1 + 1e-12):
                return low + at
        return 0

    def chain(self, price_W: Array) -> Chain | None:
        """A chain by the recursion of walks, in which each path leaves out those that it visited."""
        L, W = self.problem.layers, self.problem.workers
        cost_LW, key_LW = np.full((L + 1, W), np.inf), np.full((L + 1, W), np.inf)
        from_LW = np.zeros((L + 1, W), np.intp)  # the worker before, by (layers placed on arrival, worker)
        start_LW = np.zeros((L + 1, W), np.intp)
        visited: list[NDArray[np.bool_]] = [np.zeros((0, 0), bool)] * (L + 1)
        visit_W, everyone = price_W + self.total.stages.step_W, np.arange(W)
        for stop in range(1, L + 1):
            cost_W = np.where(self.first_WL[:, stop] == 0, self.enter_W + price_W + self.sums_LW[stop], np.inf)
            low_W = np.maximum(self.window_WL[:, stop], 1)
            low = int(low_W.min())
            if low < stop:
                inside = np.arange(low, stop)[:, None] >= low_W
                keys = np.where(inside, key_LW[low:stop], np.inf)
                at_W = np.argmin(keys, axis=0)
                later_W = keys[at_W, everyone] + self.sums_LW[stop] + visit_W
                start_LW[stop] = np.where(later_W < cost_W, low + at_W, 0)
                cost_W = np.minimum(cost_W, later_W)
            cost_LW[stop] = cost_W
            seen_WW = np.zeros((W, W), bool)
            seen_WW[everyone, everyone] = True
            for start in np.unique(start_LW[stop][np.isfinite(cost_W) & (start_LW[stop] > 0)]):
                these = np.flatnonzero((start_LW[stop] == start) & np.isfinite(cost_W))
                seen_WW[these] |= visited[start][from_LW[start, these]]
            visited[stop] = seen_WW
            if stop < L:
                np.add(self.link_WW, cost_W[:, None], out=self.buffer_WW)
                self.buffer_WW[seen_WW] = np.inf
                from_LW[stop] = np.argmin(self.buffer_WW, axis=0)
                key_LW[stop] = self.buffer_WW[from_LW[stop], everyone] - self.sums_LW[stop]
        ends_W = cost_LW[L] + self.leave_W
        w, stop = int(np.argmin(ends_W)), L
        if not np.isfinite(ends_W[w]):
            return None
        workers, stops = [w], [L]
        while (start := int(start_LW[stop, w])) > 0:
            w, stop = int(from_LW[start, w]), start
            workers.insert(0, w)
            stops.insert(0, stop)
        options = [int(self.option_WW[a, b]) for a, b in itertools.pairwise(workers)]
        return Chain(tuple(workers), tuple(stops), tuple(options))
