"""The best placement by the figures measured: which workers, in which order, with which layers, which codec a link.

Proven best for small clusters; for larger ones a good one, and a bound that says how good.
"""

import itertools
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from hyperlane.artifacts import Cluster, ModelSpec
from hyperlane.errors import PlanError
from hyperlane.partition import Cut, Range, usable_bytes
from hyperlane.partition.costs import Links, StepCosts, StepKind, room, step_costs
from hyperlane.partition.goals import Goal, Period, Solve, Sum
from hyperlane.partition.knapsack import Knapsack
from hyperlane.partition.memory import Workload
from hyperlane.partition.problem import Chain, Found, Problem, Total
from hyperlane.partition.subsets import best_chain
from hyperlane.partition.uniform import Uniform
from hyperlane.partition.walks import Effort, search

_EXACT_WORK = 60_000_000  # up to so many additions of one pass over all sets of workers
_EXACT_SOLVES = 400


class Objective(Enum):
    latency = "latency"  # seconds of a lone stream's step
    throughput = "throughput"  # seconds a token with all lanes full
    ttft = "ttft"  # seconds to the first token of a prompt
    weighted = "weighted"  # the weighted sum of these three


@dataclass(kw_only=True, slots=True)
class Weights:
    latency: float = 1.0
    throughput: float = 1.0
    ttft: float = 0.1


@dataclass(kw_only=True, slots=True)
class Optimal:
    """`seconds` is how long a placement is sought at most where the cluster is too large for the exact answer."""

    reserve: float = 0.1
    objective: Objective = Objective.latency
    weights: Weights = field(default_factory=Weights)
    seconds: float = 5.0

    def cut(self, model: ModelSpec, cluster: Cluster, workload: Workload) -> Cut:
        placement = Placing(self, model, cluster, workload)
        found = placement.best()
        if found.chain is None:
            Knapsack(reserve=self.reserve).cut(model, cluster, workload)  # says what is lacking, if it is memory
            raise PlanError(f"no chain of these {len(cluster.workers)} workers holds {model.source}; add workers")
        names = [worker.name for worker in cluster.workers]
        return Cut(
            ranges=tuple(Range(names[w], start, stop) for w, start, stop in found.chain.spans()),
            codecs=tuple(workload.codecs[option] for option in found.chain.options),
            objective=placement.value(found.chain),
            bound=found.bound,
        )


class Placing:
    """One objective on one cluster, as goals: one for each number of hops that gives a lane another number of rows."""

    def __init__(self, settings: Optimal, model: ModelSpec, cluster: Cluster, workload: Workload) -> None:
        self.settings, self.model, self.cluster, self.workload = settings, model, cluster, workload
        self.room = room(model, cluster, workload, [usable_bytes(w, settings.reserve) for w in cluster.workers])
        self.longest = min(len(cluster.workers), model.layers)
        self.links = Links.of(cluster)
        self.known: dict[StepKind, StepCosts] = {}
        self.exact = self._work() <= _EXACT_WORK
        self.until_s = time.monotonic() + settings.seconds

    def best(self) -> Found:
        """The best chain of all goals, and the least of their bounds."""
        best: Chain | None = None
        least = bound = np.inf
        for chain in () if self.exact else self._simple():
            if (value := self.value(chain)) < least:
                best, least = chain, value
        # Long chains first: what they reach leaves little to prove of short ones. Then once more what is not proven.
        open_goals = [(0.0, goal) for goal in reversed(self.goals(self.exact))]
        for _ in range(1 if self.exact else 2):
            left, open_goals = open_goals, []
            for index, (known, goal) in enumerate(left):
                if known >= least:
                    continue
                left_s = (self.until_s - time.monotonic()) / (len(left) - index)
                solves = _EXACT_SOLVES if self.exact else self._walks()
                found = goal.best(self._solver(left_s), solves, least)
                open_goals.append((max(known, found.bound), goal))
                if found.chain is not None and (value := self.value(found.chain)) < least:
                    best, least = found.chain, value
            left_bounds = [known for known, _ in open_goals]
            bound = min(left_bounds, default=least)
            if time.monotonic() > self.until_s:
                break
        return Found(best, min(bound, least))

    def value(self, chain: Chain) -> float:
        """The objective of a chain as it will run: with the lanes that it will have."""
        hops = len(chain.workers)
        return min(goal.value(chain) for goal in self.goals(True, [hops]))

    def chain_of(self, ranges: Sequence[Range]) -> Chain:
        """With the quickest option of each link for a lone row."""
        index = {worker.name: i for i, worker in enumerate(self.cluster.workers)}
        workers = tuple(index[item.worker] for item in ranges)
        link_OWW = self._decode(1).total.link_OWW
        options = tuple(int(link_OWW[:, a, b].argmin()) for a, b in itertools.pairwise(workers))
        return Chain(workers, tuple(item.stop for item in ranges), options)

    def goals(self, exact: bool, hops: Sequence[int] | None = None) -> list[Goal]:
        """For each of `hops` if exact, else by the rows that a lane gets, with the bound of all such chains."""
        settings, weights = self.settings, self.settings.weights
        every = list(hops or range(1, self.longest + 1))
        span = range(min(every), max(every) + 1)
        if settings.objective is Objective.latency:
            return [self._period(self._decode(1), 1.0, span)]
        if settings.objective is Objective.ttft:
            groups = self._groups(every, self.workload.chunk_of)
            return [self._sum([(1.0, *self._prefill(group.start))], group) for group in groups]
        goals: list[Goal] = []
        for group in self._groups(every, self._lanes_by(exact)):
            rows = self.workload.lane_rows(group.start)
            lanes = self.workload.lanes_of(group.stop - 1)
            if settings.objective is Objective.throughput:
                goals.append(self._period(self._decode(rows), 1 / lanes, group, 1 / rows))
            else:
                prefill, more = self._prefill(group.start)
                parts = [
                    (weights.latency, self._decode(1), 0.0),
                    (0.0, self._decode(rows), weights.throughput / rows),
                    (weights.ttft, prefill, weights.ttft * more),
                ]
                goals.append(self._sum(parts, group))
        return goals

    def _lanes_by(self, exact: bool) -> Callable[[int], Hashable]:
        """What chains of a group have in common, by their hops."""
        workload = self.workload
        if self.settings.objective is Objective.weighted:
            return lambda n: (workload.lane_rows(n), workload.chunk_of(n))
        if exact and not workload.lanes:
            return lambda n: n
        return workload.lane_rows

    def _groups(self, hops: Sequence[int], common: Callable[[int], Hashable]) -> list[range]:
        groups = [list(group) for _, group in itertools.groupby(hops, common)]
        return [range(group[0], group[-1] + 1) for group in groups]

    def _period(self, costs: StepCosts, share: float, hops: range, scale: float = 1.0) -> Goal:
        """max(share of the total, slowest part), in seconds times `scale`."""
        scaled = costs.times(scale)
        problem = Problem(
            total=costs.times(share * scale).total, bottlenecks=(scaled.bottleneck,), room=self.room, hops=hops
        )
        if share == 1 and (costs.share_W == 1).all():  # no part is slower than all of them
            return Sum(replace(problem, bottlenecks=()), ())
        return Period(problem)

    def _sum(self, parts: Sequence[tuple[float, StepCosts, float]], hops: range) -> Goal:
        """Parts: the weight of a total, its costs, and the weight of its slowest part."""
        total = _added([costs.times(weight).total for weight, costs, _ in parts if weight])
        slow = [(costs.bottleneck, weight) for _, costs, weight in parts if weight]
        problem = Problem(total=total, bottlenecks=tuple(b for b, _ in slow), room=self.room, hops=hops)
        return Sum(problem, tuple(weight for _, weight in slow))

    def _decode(self, rows: int) -> StepCosts:
        return self._costs(StepKind(True, rows, self.workload.past))

    def _prefill(self, hops: int) -> tuple[StepCosts, int]:
        """One piece of the prompt, as a quota lets it pass, for a piece is long; and how many more there are."""
        rows = self.workload.chunk_of(hops)
        kind = StepKind(False, rows, max(0, self.workload.prompt_tokens - rows) // 2)
        return self._costs(kind).sustained(), self.workload.chunks_of(hops) - 1

    def _costs(self, kind: StepKind) -> StepCosts:
        if kind not in self.known:
            self.known[kind] = step_costs(self.model, self.cluster, self.workload.codecs, kind, self.links)
        return self.known[kind]

    def _solver(self, seconds: float) -> Solve:
        if self.exact:
            return _collapsed
        effort = Effort(seconds=max(0.3, seconds / 2))
        shorter = replace(effort, seconds=max(0.3, seconds / (2 * self._walks())))

        def solve(problem: Problem, caps: Sequence[float]) -> Found:
            return search(problem, caps, effort if not problem.bottlenecks else shorter)

        return solve

    def _walks(self) -> int:
        """How many caps are tried."""
        return 16 if len(self.cluster.workers) <= 64 else 6

    def _simple(self) -> Iterable[Chain]:
        """What uniform and knapsack would do, if they can."""
        for strategy in (Uniform(reserve=self.settings.reserve), Knapsack(reserve=self.settings.reserve)):
            try:
                ranges = strategy.cut(self.model, self.cluster, self.workload).ranges
            except PlanError:
                continue
            index = {worker.name: i for i, worker in enumerate(self.cluster.workers)}
            workers, stops = tuple(index[r.worker] for r in ranges), tuple(r.stop for r in ranges)
            chain = Chain(workers, stops, (0,) * (len(ranges) - 1))
            if all(self.room.fits(*span) for span in chain.spans()):
                yield chain

    def _work(self) -> float:
        W, O, L = len(self.cluster.workers), len(self.workload.codecs), self.model.layers  # noqa: E741
        return 2.0 ** min(W, 60) * W * (W * O + 8 * O * O) * L / 2


def _collapsed(problem: Problem, caps: Sequence[float]) -> Found:
    """The exact answer; where nothing else depends on a link's option, its cheapest is taken at once."""
    if problem.bottlenecks or problem.options == 1:
        return best_chain(problem, caps)
    option_WW = problem.total.link_OWW.argmin(axis=0)
    cheapest = replace(problem.total, link_OWW=problem.total.link_OWW.min(axis=0)[None])
    found = best_chain(replace(problem, total=cheapest), caps)
    if found.chain is None:
        return found
    workers = found.chain.workers
    options = tuple(int(option_WW[pair]) for pair in itertools.pairwise(workers))
    return Found(replace(found.chain, options=options), found.bound)


def _added(totals: Sequence[Total]) -> Total:
    first, *rest = totals
    for other in rest:
        a, b = first.stages, other.stages
        first = Total(
            stages=replace(
                a,
                layer_WL=a.layer_WL + b.layer_WL,
                step_W=a.step_W + b.step_W,
                first_W=a.first_W + b.first_W,
                last_W=a.last_W + b.last_W,
            ),
            link_OWW=first.link_OWW + other.link_OWW,
            enter_W=first.enter_W + other.enter_W,
            leave_W=first.leave_W + other.leave_W,
        )
    return first
