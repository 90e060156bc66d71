"""Placement as numbers: what chains are made of, what one costs, and what binds it. Indices only, no names.

Shape suffixes: W workers, L layers, O options of a link (one codec a phase each), the sender before the receiver.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chain:
    """`workers` in chain order; worker i takes layers stops[i-1]:stops[i]; link i to i + 1 is used as options[i]."""

    workers: tuple[int, ...]
    stops: tuple[int, ...]
    options: tuple[int, ...]

    def spans(self) -> list[tuple[int, int, int]]:
        """(worker, start, stop) of each hop."""
        return list(zip(self.workers, (0, *self.stops[:-1]), self.stops, strict=True))


@dataclass(frozen=True, slots=True)
class Found:
    """A chain, or None, and what no chain is below."""

    chain: Chain | None
    bound: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Stages:
    """What each worker takes for one step of a kind, in seconds (or in whatever a weighted sum of them is)."""

    layer_WL: Array
    step_W: Array  # however many layers
    first_W: Array  # more for the first of the chain
    last_W: Array  # more for the last

    def times(self, factor_W: Array) -> "Stages":
        return Stages(
            layer_WL=self.layer_WL * factor_W[:, None],
            step_W=self.step_W * factor_W,
            first_W=self.first_W * factor_W,
            last_W=self.last_W * factor_W,
        )

    @cached_property
    def sums_WL(self) -> Array:  # noqa: N802
        """[W, L + 1]: the layers before each."""
        return np.concatenate([np.zeros((len(self.layer_WL), 1)), np.cumsum(self.layer_WL, axis=1)], axis=1)

    def of(self, worker: int, start: int, stop: int) -> float:
        """One stage."""
        layers = self.layer_WL.shape[1]
        ends = self.first_W[worker] * (start == 0) + self.last_W[worker] * (stop == layers)
        return float(self.sums_WL[worker, stop] - self.sums_WL[worker, start] + self.step_W[worker] + ends)


@dataclass(frozen=True, eq=False, kw_only=True)
class Total:
    """What adds up along a chain. `enter_W` and `leave_W` are the links from and to the coordinator."""

    stages: Stages
    link_OWW: Array
    enter_W: Array
    leave_W: Array

    def of(self, chain: Chain) -> float:
        stages = sum(self.stages.of(*span) for span in chain.spans())
        links = sum(
            float(self.link_OWW[option, source, target])
            for option, source, target in zip(chain.options, chain.workers, chain.workers[1:], strict=False)
        )
        return float(self.enter_W[chain.workers[0]]) + stages + links + float(self.leave_W[chain.workers[-1]])


@dataclass(frozen=True, eq=False, kw_only=True)
class Bottleneck:
    """What the slowest of a chain's parts decides: a worker with what it encodes and decodes, or a link's wire."""

    stages: Stages
    encode_OW: Array
    decode_OW: Array
    wire_OWW: Array

    def of(self, chain: Chain) -> float:
        return max(self.parts(chain))

    def parts(self, chain: Chain) -> list[float]:
        """Every worker's period, then every link's."""
        busy = [self.stages.of(*span) for span in chain.spans()]
        wires = []
        for hop, option in enumerate(chain.options):
            source, target = chain.workers[hop : hop + 2]
            busy[hop] += float(self.encode_OW[option, source])
            busy[hop + 1] += float(self.decode_OW[option, target])
            wires.append(float(self.wire_OWW[option, source, target]))
        return busy + wires


@dataclass(frozen=True, eq=False, kw_only=True)
class Room:
    """Memory in bytes: of layers, of the ends of a chain, of any shard, and what each worker has."""

    layer_L: Array
    first: float
    last: float
    any: float
    has_W: Array

    @cached_property
    def sums_L(self) -> Array:  # noqa: N802
        return np.concatenate([[0.0], np.cumsum(self.layer_L)])

    def fits(self, worker: int, start: int, stop: int) -> bool:
        ends = self.first * (start == 0) + self.last * (stop == len(self.layer_L))
        return bool(self.sums_L[stop] - self.sums_L[start] + self.any + ends <= self.has_W[worker])


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """Minimize `total` over the chains of `hops` workers that fit, with every bottleneck at most its cap."""

    total: Total
    bottlenecks: tuple[Bottleneck, ...]
    room: Room
    hops: range  # how many workers a chain may have

    @property
    def workers(self) -> int:
        return len(self.room.has_W)

    @property
    def layers(self) -> int:
        return len(self.room.layer_L)

    @property
    def options(self) -> int:
        return len(self.total.link_OWW)

    def allows(self, chain: Chain) -> bool:
        """Whether `chain` fits its workers and is as long as it may be."""
        return len(chain.workers) in self.hops and all(self.room.fits(*span) for span in chain.spans())


def windows(
    problem: Problem, caps: Sequence[float], workers: NDArray[np.intp], coding_B: Sequence[Array], *, first: bool
) -> NDArray[np.intp]:
    """[N, L + 1]: for each stop the least start that memory and `caps` allow; the stop itself where none does.

    workers: N of them. coding_B: for each bottleneck what they encode and decode, [N]. Starts from the least one on
    are allowed too, as no cost of a layer is negative. `first`: a shard that begins the chain; only its start 0 counts.
    """
    L, room, N = problem.layers, problem.room, len(workers)
    sums_NL = np.broadcast_to(room.sums_L, (N, L + 1))
    ends = np.full(N, room.first), np.full(N, room.last)
    limits = [(sums_NL, room.has_W[workers] - room.any, *ends)]
    for cap, bottleneck, coding_N in zip(caps, problem.bottlenecks, coding_B, strict=True):
        stages = bottleneck.stages
        left_N = cap - stages.step_W[workers] - coding_N
        limits.append((stages.sums_WL[workers], left_N, stages.first_W[workers], stages.last_W[workers]))
    least_NL = np.zeros((N, L + 1), np.intp)
    for sums_NL, left_N, first_N, last_N in limits:
        may_NL = np.repeat((left_N - first_N * first)[:, None], L + 1, axis=1)
        may_NL[:, L] -= last_N
        due_NL = sums_NL - may_NL - 1e-12 * np.maximum(np.abs(left_N[:, None]), 1e-12)  # what rounding may add to a sum
        for n in range(N):
            least_NL[n] = np.maximum(least_NL[n], np.searchsorted(sums_NL[n], due_NL[n], side="left"))
    return np.minimum(least_NL, np.arange(L + 1))


def any_window(problem: Problem, caps: Sequence[float]) -> NDArray[np.intp]:
    """[W, L + 1]: for each stop the least start of a shard anywhere in a chain, coded as cheaply as can be."""
    everyone = np.arange(problem.workers)
    nothing = [np.zeros(problem.workers) for _ in problem.bottlenecks]
    first_WL = windows(problem, caps, everyone, nothing, first=True)
    later_WL = windows(problem, caps, everyone, nothing, first=False)
    return np.minimum(later_WL, np.where(first_WL == 0, 0, np.arange(problem.layers + 1)))


def may_hold(problem: Problem, caps: Sequence[float]) -> bool:
    """False only where as many workers as a chain may have cannot hold all layers within `caps`."""
    most_W = np.sort((np.arange(problem.layers + 1) - any_window(problem, caps)).max(axis=1))[::-1]
    longest = min(problem.hops.stop - 1, problem.workers)
    return int(most_W[:longest].sum()) >= problem.layers
