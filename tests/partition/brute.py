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
    options_KH = _all_options(problem.options, hops - 1)
    ways = [(options_KH[:, h], workers[h], workers[h + 1]) for h in range(hops - 1)]
    value_KC = sum((problem.total.link_OWW[way] for way in ways), np.zeros(len(options_KH)))[:, None] + total_C
    slowest = []
    for b, stages in zip(problem.bottlenecks, busy, strict=True):
        wires_K = functools.reduce(np.maximum, (b.wire_OWW[way] for way in ways), np.full(len(options_KH), -np.inf))
        most_KC = np.broadcast_to(wires_K[:, None], value_KC.shape)
        for hop, worker in enumerate(workers):
            coding_K = np.zeros(len(options_KH))
            if hop:
                coding_K = coding_K + b.decode_OW[options_KH[:, hop - 1], worker]
            if hop < hops - 1:
                coding_K = coding_K + b.encode_OW[options_KH[:, hop], worker]
            most_KC = np.maximum(most_KC, stages[hop] + coding_K[:, None])
        slowest.append(most_KC)
    if isinstance(goal, Sum):
        value_KC = value_KC + sum(w * s for w, s in zip(goal.weights, slowest, strict=True))
    else:
        value_KC = np.maximum(value_KC, slowest[0])
    return float(value_KC.min())


@functools.cache
def _all_options(options: int, links: int) -> NDArray[np.intp]:
    """[K, links] every choice of an option for each link."""
    return np.array(list(itertools.product(range(options), repeat=links)), np.intp).reshape(options**links, links)


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
