"""The exact answer for small clusters: dynamic programming over sets of workers.

`cost[set, last worker, its link's option, layers placed]` is the least total of a chain over exactly that set. Sets
are taken by size, all of a size at once; a stage may start anywhere in a range, so its best start is the minimum over a
window.
Time grows as 2^W W^2 O^2 L; memory as 2^W W O L.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hyperlane.partition.problem import Array, Chain, Found, Problem, windows


def best_chain(problem: Problem, caps: Sequence[float]) -> Found:
    """The chain of least total whose bottlenecks are at most `caps`; None where there is none."""
    chain = _Search(problem, caps).run()
    return Found(chain, np.inf if chain is None else problem.total.of(chain))


@dataclass(slots=True)
class _Level:
    """All sets of one size. `cost_SWOL` is infinite where there is no such chain."""

    masks: list[int]
    cost_SWOL: Array
    done_SW: Array  # all layers placed, the way home included


class _Search:
    def __init__(self, problem: Problem, caps: Sequence[float]) -> None:
        self.problem, self.total = problem, problem.total
        W, O, L = problem.workers, problem.options, problem.layers  # noqa: E741
        stages = self.total.stages
        self.sums_WL, self.step_W, self.last_W = stages.sums_WL, stages.step_W, stages.last_W
        usable = np.ones((O, W, W), bool)
        for cap, bottleneck in zip(caps, problem.bottlenecks, strict=True):
            usable &= bottleneck.wire_OWW <= cap * (1 + 1e-12)
        self.link_OWW = np.where(usable, self.total.link_OWW, np.inf)
        everyone = np.arange(W)
        self.window_SRWL = np.empty((O + 1, O + 1, W, L + 1), np.intp)  # the last option is the coordinator's link
        for send in range(O + 1):
            for receive in range(O + 1):
                coding = [_padded(b.encode_OW)[send] + _padded(b.decode_OW)[receive] for b in problem.bottlenecks]
                at_WL = windows(problem, caps, everyone, coding, first=receive == O)
                self.window_SRWL[send, receive] = at_WL
        self.arange_L = np.arange(L + 1)

    def run(self) -> Chain | None:
        W = self.problem.workers
        levels = [self._first_level()]
        longest = min(W, self.problem.layers, self.problem.hops.stop - 1)
        while len(levels) < longest and np.isfinite(levels[-1].cost_SWOL).any():
            levels.append(self._next_level(levels[-1], len(levels) + 1))
        sizes = [size for size in range(1, len(levels) + 1) if size in self.problem.hops]
        best, at = np.inf, None
        for size in sizes:
            done_SW = levels[size - 1].done_SW
            index = int(np.argmin(done_SW))
            if done_SW.flat[index] < best:
                best, at = float(done_SW.flat[index]), (size, *divmod(index, W))
        return None if at is None else self._trace(levels, *at)

    def _first_level(self) -> _Level:
        W, O, L = self.problem.workers, self.problem.options, self.problem.layers  # noqa: E741
        level = _Level([1 << w for w in range(W)], np.full((W, W, O, L + 1), np.inf), np.full((W, W), np.inf))
        for w in range(W):
            stage_L = self.sums_WL[w] + self.step_W[w] + self.total.stages.first_W[w] + self.total.enter_W[w]
            for send in range(O):
                reached = (self.window_SRWL[send, -1, w] == 0) & (self.arange_L > 0) & (self.arange_L < L)
                level.cost_SWOL[w, w, send] = np.where(reached, stage_L, np.inf)
            if self.window_SRWL[-1, -1, w, L] == 0:
                level.done_SW[w, w] = stage_L[L] + self.last_W[w] + self.total.leave_W[w]
        return level

    def _next_level(self, level: _Level, size: int) -> _Level:
        W, O, L = self.problem.workers, self.problem.options, self.problem.layers  # noqa: E741
        masks = [sum(1 << w for w in chosen) for chosen in combinations(range(W), size)]
        index = {mask: i for i, mask in enumerate(masks)}
        new = _Level(masks, np.full((len(masks), W, O, L + 1), np.inf), np.full((len(masks), W), np.inf))
        for w in range(W):
            sources = [i for i, mask in enumerate(level.masks) if not mask >> w & 1]
            targets = [index[level.masks[i] | 1 << w] for i in sources]
            before = level.cost_SWOL[sources]
            arrive_OLS = (before + self.link_OWW[:, :, w].T[None, :, :, None]).min(axis=1).transpose(1, 2, 0)
            for receive in range(O):
                tables = _tables(arrive_OLS[receive] - self.sums_WL[w][:, None])
                for send in range(O):
                    least = _minima(tables, self.window_SRWL[send, receive, w])
                    cost_SL = (least + (self.sums_WL[w] + self.step_W[w])[:, None]).T
                    cost_SL[:, L] = np.inf
                    new.cost_SWOL[targets, w, send] = np.minimum(new.cost_SWOL[targets, w, send], cost_SL)
                low = self.window_SRWL[-1, receive, w, L]
                if low < L:
                    least_S = tables[0][low:L].min(axis=0)
                    done_S = least_S + self.sums_WL[w, L] + self.step_W[w] + self.last_W[w] + self.total.leave_W[w]
                    new.done_SW[targets, w] = np.minimum(new.done_SW[targets, w], done_S)
        return new

    def _trace(self, levels: Sequence[_Level], size: int, row: int, last: int) -> Chain:
        """Back from the end: at each hop the start, the worker before and the option that give the cost found."""
        L = self.problem.layers
        mask, stop, send = levels[size - 1].masks[row], L, -1
        workers, stops = [last], [L]
        options: list[int] = []
        while size > 1:
            w, mask, size = workers[0], mask & ~(1 << workers[0]), size - 1
            cost_WOL = levels[size - 1].cost_SWOL[levels[size - 1].masks.index(mask)]
            before = cost_WOL + self.link_OWW[:, :, w].T[:, :, None] - self.sums_WL[w]
            for receive in range(self.problem.options):
                before[:, receive, : self.window_SRWL[send, receive, w, stop]] = np.inf
            before[:, :, stop:] = np.inf
            source, option, start = np.unravel_index(int(np.argmin(before)), before.shape)
            workers.insert(0, int(source))
            options.insert(0, int(option))
            stops.insert(0, int(start))
            stop, send = int(start), int(option)
        return Chain(tuple(workers), tuple(stops), tuple(options))


def _padded(coding_OW: Array) -> Array:
    """The coordinator's links carry tokens and candidates, which are not coded."""
    return np.concatenate([coding_OW, np.zeros((1, coding_OW.shape[1]))])


def _tables(values_LS: Array) -> list[Array]:
    """Minima over windows of 1, 2, 4 ... layers, from each layer on."""
    tables, width = [values_LS], 1
    while 2 * width < len(values_LS):
        longer = tables[-1].copy()
        longer[:-width] = np.minimum(tables[-1][:-width], tables[-1][width:])
        tables.append(longer)
        width *= 2
    return tables


def _minima(tables: Sequence[Array], low_L: NDArray[np.intp]) -> Array:
    """[L + 1, S]: for each stop the least value of low:stop; infinite where that is empty."""
    result = np.full_like(tables[0], np.inf)
    lengths = np.arange(len(low_L)) - low_L
    for level, table in enumerate(tables):
        width = 1 << level
        stops = np.flatnonzero((lengths >= width) & ((lengths < 2 * width) | (level == len(tables) - 1)))
        if len(stops):
            result[stops] = np.minimum(table[low_L[stops]], table[stops - width])
    return result
