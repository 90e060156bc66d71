"""Every order of workers, every cut, every option of every link: what the best chain is worth, at length."""

import functools
import itertools

import numpy as np
from numpy.typing import NDArray

from hyperlane.partition.goals import Goal, Sum
from hyperlane.partition.problem import Array, Problem, Stages


def least_value(goal: Goal) -> float:
    """Infinite where no chain fits."""
    problem, best = goal.problem, np.inf
    for hops in problem.hops:
        if hops <= min(problem.workers, problem.layers):
            for workers in itertools.permutations(range(problem.workers), hops):
                best = min(best, _of_order(goal, workers))
    return best


def _of_order(goal: Goal, workers: tuple[int, ...]) -> float:
    problem, hops = goal.problem, len(workers)
    starts, stops = _cuts(problem, workers)
    if not len(starts):
        return np.inf
    total_C = problem.total.enter_W[workers[0]] + problem.total.leave_W[workers[-1]]
    total_C = total_C + sum(_stages(problem.total.stages, workers, starts, stops))
    busy = [_stages(b.stages, workers, starts, stops) for b in problem.bottlenecks]
    best = np.inf
    for options in itertools.product(range(problem.options), repeat=hops - 1):
        links = [(o, workers[h], workers[h + 1]) for h, o in enumerate(options)]
        value_C = total_C + sum(problem.total.link_OWW[link] for link in links)
        slowest = []
        for b, stages in zip(problem.bottlenecks, busy, strict=True):
            parts = [np.full(len(starts), b.wire_OWW[link]) for link in links]
            for hop, worker in enumerate(workers):
                receives = b.decode_OW[options[hop - 1], worker] if hop else 0.0
                sends = b.encode_OW[options[hop], worker] if hop < hops - 1 else 0.0
                parts.append(stages[hop] + receives + sends)
            slowest.append(np.max(parts, axis=0))
        if isinstance(goal, Sum):
            value_C = value_C + sum(w * s for w, s in zip(goal.weights, slowest, strict=True))
        else:
            value_C = np.maximum(value_C, slowest[0])
        best = min(best, float(value_C.min()))
    return best


@functools.cache
def _all_cuts(layers: int, hops: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    inner = np.zeros((1, 0), np.intp)
    if hops > 1:
        inner = np.array(list(itertools.combinations(range(1, layers), hops - 1)), np.intp)
    ends = np.zeros((len(inner), 1), np.intp)
    return np.hstack([ends, inner]), np.hstack([inner, ends + layers])


def _cuts(problem: Problem, workers: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """[cuts, hops] starts and stops of all cuts that fit."""
    starts, stops = _all_cuts(problem.layers, len(workers))
    fits_C = np.ones(len(starts), bool)
    for hop, worker in enumerate(workers):
        room = problem.room
        need_C = room.sums_L[stops[:, hop]] - room.sums_L[starts[:, hop]] + room.any
        need_C = need_C + room.first * (hop == 0) + room.last * (hop == len(workers) - 1)
        fits_C &= need_C <= room.has_W[worker]
    return starts[fits_C], stops[fits_C]


def _stages(stages: Stages, workers: tuple[int, ...], starts: NDArray[np.intp], stops: NDArray[np.intp]) -> list[Array]:
    result = []
    for hop, worker in enumerate(workers):
        layers = stages.sums_WL[worker, stops[:, hop]] - stages.sums_WL[worker, starts[:, hop]]
        ends = stages.first_W[worker] * (hop == 0) + stages.last_W[worker] * (hop == len(workers) - 1)
        result.append(layers + stages.step_W[worker] + ends)
    return result
