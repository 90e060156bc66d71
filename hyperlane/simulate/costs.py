"""What one step takes at each place of a chain, by the cluster's figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hyperlane.artifacts import Cluster, ModelSpec, WorkerInfo, WorkerSpeed
from hyperlane.generate.step import Step
from hyperlane.partition import Range
from hyperlane.partition.costs import ITEM_BYTES, LINK_BYTES_PER_S, Links, ends_s, home_bytes
from hyperlane.partition.rates import fit, frame_cost, head_s, speed_for

PHASES = ("prefill", "decode")


@dataclass(slots=True, eq=False, kw_only=True)
class StageCosts:
    """One worker with its layers."""

    worker: WorkerInfo
    model: ModelSpec
    start: int
    stop: int
    receives: Mapping[str, str]  # by phase: codec of the rows that come; "" for tokens
    sends: Mapping[str, str]  # "" for candidates
    last: bool = field(init=False)
    _base: dict[tuple[str, int, int], tuple[float, float]] = field(default_factory=dict)
    _coding: dict[tuple[str, int, int], tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.last = self.stop == self.model.layers

    def compute_s(self, step: Step) -> float:
        phase = phase_of(step)
        rows, outputs = sum(run.count for run in step.runs), step.outputs
        base_s, slope_s = self._known(phase, rows, outputs)
        return base_s + slope_s * sum(run.count * run.position for run in step.runs)

    def crowded(self, step: Step) -> float:
        """How much longer it takes while others of its machine compute."""
        return self.worker.crowded_decode if phase_of(step) == "decode" else self.worker.crowded_prefill

    def coding_s(self, step: Step) -> float:
        """Decoding what comes and encoding what goes."""
        return self._frame(step)[0]

    def sent_bytes(self, step: Step) -> float:
        """Of the frame to the next worker, or home."""
        return home_bytes(len(step.runs), step.outputs) if self.last else self._frame(step)[1]

    def _known(self, phase: str, rows: int, outputs: int) -> tuple[float, float]:
        """Seconds with nothing in the cache, and for each row and position there."""
        key = phase, rows, outputs
        if key not in self._base:
            speed, span = speed_for(self.worker, self.model.quantization), slice(self.start, self.stop)
            base_s, slope_s = fit(speed.times, phase, rows, "layer_s")
            base_s *= sum(self.model.layer_bytes[span]) / speed.layer_bytes
            slope_s *= sum(self.model.kv_bytes_per_token[span]) / max(speed.kv_bytes_per_token, 1)
            self._base[key] = base_s + speed.step_s + self._head_s(speed, phase, outputs), slope_s
        return self._base[key]

    def _head_s(self, speed: WorkerSpeed, phase: str, outputs: int) -> float:
        return head_s(self.model, speed, phase, outputs) if self.last and outputs else 0.0

    def _frame(self, step: Step) -> tuple[float, float]:
        """Seconds of coding, and bytes of the frame to the next worker."""
        key = phase_of(step), sum(run.count for run in step.runs), len(step.runs)
        if key not in self._coding:
            phase, rows, runs = key
            (_, receive_s, _), (send_s, _, size_bytes) = (
                frame_cost(self.worker.codecs, codec, rows, self.model.hidden_size, runs, ITEM_BYTES[self.model.dtype])
                if codec
                else (0.0, 0.0, 0.0)
                for codec in (self.receives[phase], self.sends[phase])
            )
            self._coding[key] = receive_s + send_s, size_bytes
        return self._coding[key]


@dataclass(frozen=True, slots=True)
class Wire:
    """One link: frames follow each other at its rate, but for a burst after a rest; then they take its latency."""

    bytes_per_s: float
    latency_s: float  # a hand-off at its ends included
    burst_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCosts:
    """`wires[i]` leads to stage i, the last one home. `turn_s`: the coordinator's own for each step."""

    stages: tuple[StageCosts, ...]
    wires: tuple[Wire, ...]
    turn_s: float

    @staticmethod
    def of(
        model: ModelSpec, cluster: Cluster, ranges: Sequence[Range], codecs: Mapping[str, Sequence[str]]
    ) -> "ChainCosts":
        """`codecs`: by phase, one a link between workers."""
        links, at = Links.of(cluster), {worker.name: i for i, worker in enumerate(cluster.workers)}
        index = [at[item.worker] for item in ranges]
        workers = [cluster.workers[i] for i in index]
        ends = {phase: ("", *codecs[phase], "") for phase in PHASES}
        stages = tuple(
            StageCosts(
                worker=worker,
                model=model,
                start=item.start,
                stop=item.stop,
                receives={phase: ends[phase][hop] for phase in PHASES},
                sends={phase: ends[phase][hop + 1] for phase in PHASES},
            )
            for hop, (worker, item) in enumerate(zip(workers, ranges, strict=True))
        )
        inner = [
            Wire(
                float(links.bytes_per_s_WW[a, b]),
                float(links.latency_s_WW[a, b]) + cluster.handoff_s,
                float(links.burst_bytes_WW[a, b]),
            )
            for a, b in pairwise(index)
        ]
        first, last = (Wire(LINK_BYTES_PER_S, ends_s(worker, cluster)) for worker in (workers[0], workers[-1]))
        return ChainCosts(stages=stages, wires=(first, *inner, last), turn_s=cluster.turn_s)


def phase_of(step: Step) -> str:
    """As workers time it: a prompt's piece, or rows that all want their logits."""
    return "prefill" if any(run.outputs < run.count for run in step.runs) else "decode"
