"""What runs teach of the figures: a factor for each worker and phase, and what a hand-off takes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hyperlane.artifacts import HANDOFF_S, Accuracy, Cluster, ModelSpec, WorkerInfo

_TRUST = 0.5  # how far one run moves what is known; the first one counts whole
_MOST = 3.0  # times slower or quicker: more is an accident
_LEAST_STEPS = 8  # of decode
_MOST_HANDOFF_S = 10 * HANDOFF_S  # more is other work that ran beside the run


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCalibration:
    """`runs`: how many it was learnt from."""

    decode: float = 1.0
    prefill: float = 1.0
    handoff_s: float = HANDOFF_S
    runs: int = 0


def subject(worker: WorkerInfo, model: ModelSpec, cluster_kind: str) -> tuple[object, ...]:
    """What a worker's calibration holds for: its name and hardware, the kind of model, and how it is reached."""
    hardware = (worker.device, worker.cores, worker.threads, worker.memory_total_bytes >> 30)
    return worker.name, *hardware, model.family, model.hidden_size, model.dtype, model.quantization, cluster_kind


def calibrated(cluster: Cluster, known: Mapping[str, WorkerCalibration]) -> Cluster:
    """`known`: by worker; without one its figures stand as they were timed."""
    workers = tuple(
        replace(worker, decode_factor=known[worker.name].decode, prefill_factor=known[worker.name].prefill)
        if worker.name in known
        else worker
        for worker in cluster.workers
    )
    handoffs_s = sorted(one.handoff_s for one in known.values())
    return replace(
        cluster,
        workers=workers,
        handoff_s=handoffs_s[len(handoffs_s) // 2] if handoffs_s else cluster.handoff_s,
    )


def learnt(
    cluster: Cluster, known: Mapping[str, WorkerCalibration], accuracy: Accuracy
) -> dict[str, WorkerCalibration]:
    """What is known of the workers of a run after it."""
    workers = {worker.name: worker for worker in cluster.workers}
    names = list(dict.fromkeys(stage.worker for stage in accuracy.stages))
    handoff_s = _handoff_s(cluster, accuracy, len(names))
    return {
        name: _of_worker(workers[name], known.get(name, WorkerCalibration()), accuracy, handoff_s) for name in names
    }


def _of_worker(
    worker: WorkerInfo, before: WorkerCalibration, accuracy: Accuracy, handoff_s: float | None
) -> WorkerCalibration:
    trust = _TRUST if before.runs else 1.0
    found = {"decode": before.decode, "prefill": before.prefill}
    for stage in accuracy.stages:
        enough = stage.steps >= _LEAST_STEPS if stage.phase == "decode" else worker.share == 1  # a quota pauses it
        if stage.worker == worker.name and enough and min(stage.compute_predicted_s, stage.compute_measured_s) > 0:
            off = stage.compute_measured_s / stage.compute_predicted_s
            now = worker.decode_factor if stage.phase == "decode" else worker.prefill_factor
            found[stage.phase] = min(max(now * off**trust, 1 / _MOST), _MOST)
    return WorkerCalibration(
        decode=found["decode"],
        prefill=found["prefill"],
        handoff_s=before.handoff_s if handoff_s is None else before.handoff_s + trust * (handoff_s - before.handoff_s),
        runs=before.runs + 1,
    )


def _handoff_s(cluster: Cluster, accuracy: Accuracy, hops: int) -> float | None:
    """From what a lone stream's step takes beyond its compute; None where streams stood in each other's way."""
    if accuracy.requests > 1 or not accuracy.step_measured_s:
        return None
    predicted_s = accuracy.step_predicted_s - accuracy.compute_predicted_s
    measured_s = accuracy.step_measured_s - accuracy.compute_measured_s
    return min(max(cluster.handoff_s + (measured_s - predicted_s) / (hops + 1), HANDOFF_S / 10), _MOST_HANDOFF_S)
