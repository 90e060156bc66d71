"""One chain of simulated workers: steps go from stage to stage, one behind another, and come home in their order."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hyperlane.generate.step import Step
from hyperlane.partition.costs import BESIDE_S, TOKEN_BYTES
from hyperlane.partition.rates import FRAME_BYTES, RUN_BYTES
from hyperlane.simulate.clock import Clock
from hyperlane.simulate.cores import Cores, Seat, Work
from hyperlane.simulate.costs import ChainCosts, phase_of


@dataclass(slots=True)
class Spent:
    """What a worker's steps of one phase took."""

    steps: int = 0
    rows: int = 0
    compute_s: float = 0.0  # by the clock: neighbours and quotas count
    wire_s: float = 0.0  # to the next, waiting for the frame before included


@dataclass(slots=True, eq=False)
class SimulatedChain:
    """`cores`: each machine's, by name; a worker without one has a machine of its own."""

    clock: Clock
    costs: ChainCosts
    cores: Mapping[str, Cores]
    phase: float | None = None  # for those workers, see `Cores`
    spent: tuple[dict[str, Spent], ...] = field(init=False)  # by stage, then phase
    _seats: tuple[Seat, ...] = field(init=False)
    _machines: tuple[Cores, ...] = field(init=False)
    _free_s: list[float] = field(init=False)  # when each wire has carried what was put on it
    _begun_s: list[float] = field(init=False)  # by stage: when it was done with the step before

    def __post_init__(self) -> None:
        stages = self.costs.stages
        self.spent = tuple({} for _ in stages)
        self._seats = tuple(Seat(stage.worker.threads, stage.worker.share) for stage in stages)
        self._machines = tuple(
            self.cores.get(stage.worker.machine) or Cores(self.clock, 0, self.phase) for stage in stages
        )
        self._free_s = [-math.inf] * (len(stages) + 1)
        self._begun_s = [0.0] * len(stages)

    def send(self, step: Step, home: Callable[[Step], None]) -> None:
        """`home` is called when the result is there."""
        self._cross(0, step, tokens_bytes(step), home)

    def _cross(self, wire: int, step: Step, size_bytes: float, home: Callable[[Step], None]) -> None:
        link, now_s = self.costs.wires[wire], self.clock.now_s
        rested_s = now_s - link.burst_bytes / link.bytes_per_s
        self._free_s[wire] = max(rested_s, self._free_s[wire]) + size_bytes / link.bytes_per_s
        wait_s = max(0.0, self._free_s[wire] - now_s) + link.latency_s
        if wire:
            self._spent(wire - 1, step).wire_s += wait_s
        last = wire == len(self._seats)
        self.clock.after(wait_s, lambda: home(step) if last else self._compute(wire, step, home))

    def _compute(self, index: int, step: Step, home: Callable[[Step], None]) -> None:
        stage, seat, arrived_s = self.costs.stages[index], self._seats[index], self.clock.now_s
        compute_s = stage.compute_s(step)
        work_s = compute_s + stage.coding_s(step) + (BESIDE_S if stage.worker.share < 1 else 0.0)

        def done() -> None:
            begun_s, self._begun_s[index] = max(arrived_s, self._begun_s[index]), self.clock.now_s
            spent = self._spent(index, step)
            spent.steps += 1
            spent.rows += sum(run.count for run in step.runs)
            share = compute_s / work_s if compute_s else 0.0
            spent.compute_s += (self.clock.now_s - begun_s) * share
            self._cross(index + 1, step, stage.sent_bytes(step), home)

        self._machines[index].submit(seat, Work(work_s, stage.crowded(step), done))

    def _spent(self, index: int, step: Step) -> Spent:
        return self.spent[index].setdefault(phase_of(step), Spent())


def tokens_bytes(step: Step) -> float:
    """Of the frame to the first worker."""
    return FRAME_BYTES + RUN_BYTES * len(step.runs) + TOKEN_BYTES * len(step.token_ids)
