"""Betters a chain: its cuts exactly, its workers one exchange at a time."""

import itertools
from collections.abc import Sequence

import numpy as np

from hyperlane.partition.problem import Chain, Problem, windows

_TURNS = 60


def polish(problem: Problem, caps: Sequence[float], chain: Chain) -> Chain | None:
    """The best chain on the way of steepest descent; None where not even the first one keeps within `caps`."""
    best = recut(problem, caps, chain)
    for _ in range(_TURNS):
        if best is None:
            return None
        better = None
        for workers, options in _neighbours(problem, caps, best):
            if len(workers) not in problem.hops:
                continue
            found = recut(problem, caps, Chain(workers, (), options))
            if found is not None and problem.total.of(found) < problem.total.of(better or best) * (1 - 1e-9):
                better = found
        if better is None:
            return best
        best = better
    return best


def recut(problem: Problem, caps: Sequence[float], chain: Chain) -> Chain | None:
    """The same workers in the same order with the best cuts; None where no cuts keep within `caps`."""
    L, total, hops = problem.layers, problem.total, len(chain.workers)
    if hops > L or len(set(chain.workers)) < hops or hops not in problem.hops:
        return None
    cost_L, starts = np.full(L + 1, np.inf), []
    for hop, w in enumerate(chain.workers):
        coding = [np.zeros(1) for _ in problem.bottlenecks]
        for i, bottleneck in enumerate(problem.bottlenecks):
            if hop > 0:
                coding[i] = coding[i] + bottleneck.decode_OW[chain.options[hop - 1], w]
            if hop < hops - 1:
                coding[i] = coding[i] + bottleneck.encode_OW[chain.options[hop], w]
        low_L = windows(problem, caps, np.array([w]), coding, first=hop == 0)[0]
        sums_L = total.stages.sums_WL[w]
        if hop == 0:
            before_L = np.full(L + 1, np.inf)
            before_L[0] = total.enter_W[w] + total.stages.first_W[w]
        else:
            before_L = cost_L + total.link_OWW[chain.options[hop - 1], chain.workers[hop - 1], w]
        key_L = before_L - sums_L
        inside_LL = (np.arange(L + 1)[None, :] >= low_L[:, None]) & (
            np.arange(L + 1)[None, :] < np.arange(L + 1)[:, None]
        )
        values_LL = np.where(inside_LL, key_L[None, :], np.inf)
        start_L = np.argmin(values_LL, axis=1)
        cost_L = values_LL[np.arange(L + 1), start_L] + sums_L + total.stages.step_W[w]
        starts.append(start_L)
        if hop < hops - 1:
            cost_L[L] = np.inf
    if not np.isfinite(cost_L[L]) or any(_over(problem, caps, chain)):
        return None
    stops = [L]
    for start_L in reversed(starts[1:]):
        stops.insert(0, int(start_L[stops[0]]))
    return Chain(chain.workers, tuple(stops), chain.options)


def _over(problem: Problem, caps: Sequence[float], chain: Chain) -> list[bool]:
    return [
        bool(bottleneck.wire_OWW[option, source, target] > cap * (1 + 1e-12))
        for cap, bottleneck in zip(caps, problem.bottlenecks, strict=True)
        for option, source, target in zip(chain.options, chain.workers, chain.workers[1:], strict=False)
    ]


def _neighbours(problem: Problem, caps: Sequence[float], chain: Chain) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The most promising chains that differ by one worker: exchanged, left out, put in, moved."""
    total = problem.total
    link_OWW = total.link_OWW
    best_WW = link_OWW.min(axis=0)
    W, hops, workers = problem.workers, len(chain.workers), chain.workers
    free = np.setdiff1d(np.arange(W), workers)
    found: list[tuple[float, tuple[int, ...]]] = []
    for hop, (w, start, stop) in enumerate(chain.spans()):
        if len(free):  # exchange: exact but for caps
            stages = total.stages
            gain = stages.sums_WL[free, stop] - stages.sums_WL[free, start] + stages.step_W[free]
            gain = gain + stages.first_W[free] * (start == 0) + stages.last_W[free] * (stop == problem.layers)
            gain = gain - stages.of(w, start, stop)
            gain += (
                (best_WW[workers[hop - 1], free] - best_WW[workers[hop - 1], w])
                if hop
                else (total.enter_W[free] - total.enter_W[w])
            )
            if hop < hops - 1:
                gain += best_WW[free, workers[hop + 1]] - best_WW[w, workers[hop + 1]]
            else:
                gain += total.leave_W[free] - total.leave_W[w]
            found += [
                (float(gain[i]), (*workers[:hop], int(free[i]), *workers[hop + 1 :]))
                for i in np.argsort(gain)[:3]
                if gain[i] < 0
            ]
        if hops > 1:
            found.append((0.0, (*workers[:hop], *workers[hop + 1 :])))
        rest = (*workers[:hop], *workers[hop + 1 :])
        if hops <= 24:
            found += [(0.0, (*rest[:at], w, *rest[at:])) for at in range(hops) if at != hop]
    if len(free):
        speed = total.stages.sums_WL[free, -1]
        for at in range(hops + 1):
            detour = np.zeros(len(free))
            detour += best_WW[workers[at - 1], free] if at else total.enter_W[free]
            detour += best_WW[free, workers[at]] if at < hops else total.leave_W[free]
            i = int(np.argmin(speed / hops + detour + total.stages.step_W[free]))
            found.append((0.0, (*workers[:at], int(free[i]), *workers[at:])))
    found.sort(key=lambda item: item[0])
    chosen = [names for _, names in found[:40]]
    return [(names, _options(problem, caps, names)) for names in dict.fromkeys(chosen)]


def _options(problem: Problem, caps: Sequence[float], workers: tuple[int, ...]) -> tuple[int, ...]:
    """For each link the option of least total within the caps."""
    options = []
    for source, target in itertools.pairwise(workers):
        cost_O = problem.total.link_OWW[:, source, target].copy()
        for cap, bottleneck in zip(caps, problem.bottlenecks, strict=True):
            cost_O[bottleneck.wire_OWW[:, source, target] > cap * (1 + 1e-12)] = np.inf
        options.append(int(np.argmin(cost_O)))
    return tuple(options)
