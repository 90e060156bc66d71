"""The figures of a cluster as arrays: for each kind of step what its stages and links take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyperlane.artifacts import Cluster, ModelSpec, WorkerInfo
from hyperlane.partition.memory import Workload, activation_bytes
from hyperlane.partition.problem import Array, Bottleneck, Room, Stages, Total
from hyperlane.partition.rates import FRAME_BYTES, RUN_BYTES, frame_cost, head_s, layers_s, speed_for

LINK_BYTES_PER_S = 117e6  # 1 Gbit/s: of a link that nobody timed
ITEM_BYTES = {"float32": 4, "float16": 2}
_CANDIDATE_BYTES = 64 * 8 + 4  # of a row that comes home
TOKEN_BYTES = 4
BESIDE_S = 1e-4
"""What a worker's threads take of a CPU quota for a step besides computing it: its link, wake-ups."""


@dataclass(frozen=True, slots=True)
class StepKind:
    """`decode`: a token of each of `rows` sequences; else `rows` tokens of one. `past` positions are there already."""

    decode: bool
    rows: int
    past: int

    @property
    def phase(self) -> str:
        return "decode" if self.decode else "prefill"

    @property
    def runs(self) -> int:
        return self.rows if self.decode else 1


@dataclass(frozen=True, eq=False, kw_only=True)
class StepCosts:
    """Everything that one kind of step takes, in seconds. O counts the codecs."""

    stages: Stages
    encode_OW: Array
    decode_OW: Array
    wire_OWW: Array  # what the frame keeps the wire busy for
    cross_OWW: Array  # until it is there, where nothing was on the wire before
    enter_W: Array
    leave_W: Array
    share_W: Array
    beside_W: Array  # of a quota, for each step

    @property
    def total(self) -> Total:
        coding_OWW = self.encode_OW[:, :, None] + self.decode_OW[:, None, :]
        link_OWW = coding_OWW + self.cross_OWW
        return Total(stages=self.stages, link_OWW=link_OWW, enter_W=self.enter_W, leave_W=self.leave_W)

    @property
    def bottleneck(self) -> Bottleneck:
        """What each part is busy for, at the speed that it keeps up for long."""
        slow_W = 1 / self.share_W
        held = replace(self.stages, step_W=self.stages.step_W + self.beside_W)
        return Bottleneck(
            stages=held.times(slow_W),
            encode_OW=self.encode_OW * slow_W,
            decode_OW=self.decode_OW * slow_W,
            wire_OWW=self.wire_OWW,
        )

    def times(self, factor: float) -> "StepCosts":
        """Everything that much dearer."""
        return StepCosts(
            stages=self.stages.times(np.full(len(self.share_W), factor)),
            encode_OW=self.encode_OW * factor,
            decode_OW=self.decode_OW * factor,
            wire_OWW=self.wire_OWW * factor,
            cross_OWW=self.cross_OWW * factor,
            enter_W=self.enter_W * factor,
            leave_W=self.leave_W * factor,
            share_W=self.share_W,
            beside_W=self.beside_W * factor,
        )

    def sustained(self) -> "StepCosts":
        """The same where every stage takes so long that a quota holds it up on its own."""
        whole = self.bottleneck
        coding = {"encode_OW": whole.encode_OW, "decode_OW": whole.decode_OW}
        free_W = {"share_W": np.ones(len(self.share_W)), "beside_W": np.zeros(len(self.share_W))}
        return replace(self, stages=whole.stages, **free_W, **coding)


def step_costs(
    model: ModelSpec, cluster: Cluster, codecs: Sequence[str], kind: StepKind, links: "Links | None" = None
) -> StepCosts:
    """What a step of this kind takes on each worker and each link."""
    workers, links = cluster.workers, links or Links.of(cluster)
    speeds = [speed_for(worker, model.quantization) for worker in workers]
    known = {id(speed): layers_s(model, speed, kind.phase, kind.rows, kind.past) for speed in speeds}
    outputs = kind.rows if kind.decode else 1
    item_bytes = ITEM_BYTES[model.dtype]
    frames = np.array(
        [
            [frame_cost(w.codecs, codec, kind.rows, model.hidden_size, kind.runs, item_bytes) for w in workers]
            for codec in codecs
        ]
    )
    bytes_O = frames[:, :, 2].mean(axis=1)
    held_OWW = np.maximum(0.0, bytes_O[:, None, None] - links.burst_bytes_WW)
    home_W = np.array([ends_s(worker, cluster) for worker in workers])
    to_bytes = FRAME_BYTES + RUN_BYTES * kind.runs + TOKEN_BYTES * kind.rows
    home_s = cluster.turn_s + home_bytes(kind.runs, outputs) / LINK_BYTES_PER_S
    return StepCosts(
        stages=Stages(
            layer_WL=np.array([known[id(speed)] for speed in speeds]),
            step_W=np.array([speed.step_s for speed in speeds]),
            first_W=np.zeros(len(workers)),
            last_W=np.array([head_s(model, speed, kind.phase, outputs) for speed in speeds]),
        ),
        encode_OW=frames[:, :, 0],
        decode_OW=frames[:, :, 1],
        wire_OWW=bytes_O[:, None, None] / links.bytes_per_s_WW,
        cross_OWW=held_OWW / links.bytes_per_s_WW + links.latency_s_WW + cluster.handoff_s,
        enter_W=home_W + to_bytes / LINK_BYTES_PER_S,
        leave_W=home_W + home_s,
        share_W=np.array([worker.share for worker in workers]),
        beside_W=np.array([BESIDE_S if worker.share < 1 else 0.0 for worker in workers]),
    )


@dataclass(frozen=True, eq=False)
class Links:
    """Each direction's figures; what was not timed takes the workers' distance from the coordinator."""

    latency_s_WW: Array
    bytes_per_s_WW: Array
    burst_bytes_WW: Array

    @staticmethod
    def of(cluster: Cluster) -> "Links":
        workers = cluster.workers
        home_W = np.array([worker.latency_s / 2 for worker in workers])
        latency_WW = np.maximum(home_W[:, None], home_W[None, :])
        bytes_WW, burst_WW = np.full(latency_WW.shape, LINK_BYTES_PER_S), np.zeros(latency_WW.shape)
        members: dict[str, list[int]] = {}
        for index, worker in enumerate(workers):
            for name in {worker.name, worker.site} - {""}:
                members.setdefault(name, []).append(index)
        names = {worker.name for worker in workers}
        for link in sorted(cluster.links, key=lambda link: (link.source in names, link.target in names)):
            at = np.ix_(members.get(link.source, []), members.get(link.target, []))
            latency_WW[at], bytes_WW[at], burst_WW[at] = link.latency_s, link.bytes_per_s, link.burst_bytes
        return Links(latency_WW, bytes_WW, burst_WW)


def ends_s(worker: WorkerInfo, cluster: Cluster) -> float:
    """From the coordinator to a worker, or back; its latency was asked of a process too, so a hand-off is in it."""
    return max(worker.latency_s / 2, cluster.handoff_s)


def home_bytes(runs: int, outputs: int) -> float:
    """Of a frame of candidates."""
    return FRAME_BYTES + RUN_BYTES * runs + _CANDIDATE_BYTES * outputs


def room(model: ModelSpec, cluster: Cluster, workload: Workload, usable_W: Sequence[int]) -> Room:
    """Memory as `place` counts it."""
    kv_L = np.array(model.kv_bytes_per_token, float) * workload.slots * (workload.context + 1)
    anywhere = activation_bytes(model, False, workload)
    return Room(
        layer_L=np.array(model.layer_bytes, float) + kv_L,
        first=float(model.embedding_bytes),
        last=float(model.head_bytes + activation_bytes(model, True, workload) - anywhere),
        any=float(anywhere),
        has_W=np.array(usable_W, float),
    )
