"""Why a placement is as it is, in words: what binds it, who is left out, what one more of each worker would bring."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hyperlane.artifacts import Cluster, LinkInfo, ModelSpec, Placement, Prediction, WorkerInfo
from hyperlane.errors import PlanError
from hyperlane.partition import usable_bytes
from hyperlane.partition.memory import Workload
from hyperlane.partition.optimal import Objective, Optimal

_FULL = 0.9  # of the memory that may be used: another layer hardly fits
_UNITS = {Objective.latency: "ms a token", Objective.throughput: "ms a token", Objective.ttft: "ms to the first token"}
_SECONDS = 1.0  # for each kind of worker that is tried


def explain(
    settings: Optimal,
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    placements: Sequence[Placement],
    predicted: Prediction,
    objective: float,
    bound: float,
) -> str:
    """Several lines, the last with a newline."""
    lines = [
        *_aim(settings, predicted, objective, bound),
        *_stages(settings, cluster, placements, predicted),
        *_absent(cluster, placements),
        *_more(settings, model, cluster, workload, objective),
    ]
    return "\n".join(lines) + "\n"


def _aim(settings: Optimal, predicted: Prediction, objective: float, bound: float) -> Iterator[str]:
    unit = _UNITS.get(settings.objective, "ms, weighted")
    proof = (
        "proven best" if bound >= objective * (1 - 1e-9) else f"at most {100 * (1 - bound / objective):.2g} % from best"
    )
    yield f"objective={settings.objective.value}: {1e3 * objective:.4g} {unit}, {proof}"
    yield (
        f"a lone stream's step is {1e3 * predicted.compute_s:.3g} ms of compute and {1e3 * predicted.wire_s:.3g} ms "
        f"of wire; with {predicted.lanes} lanes of {predicted.lane_rows} rows {predicted.binds} binds"
    )
    if not predicted.measured:
        yield "some figures are assumed, not measured: run with measure=always"


def _stages(
    settings: Optimal, cluster: Cluster, placements: Sequence[Placement], predicted: Prediction
) -> Iterator[str]:
    workers = {worker.name: worker for worker in cluster.workers}
    slowest = max(stage.lane_s / workers[stage.worker].share for stage in predicted.stages)
    for placement, stage in zip(placements, predicted.stages, strict=True):
        worker = workers[placement.worker]
        share = placement.memory_bytes / max(usable_bytes(worker, settings.reserve), 1)
        notes = [f"{1e3 * stage.decode_s:.3g} ms a step, {100 * share:.0f} % of its memory"]
        if share >= _FULL:
            notes.append("memory binds")
        if stage.lane_s / worker.share >= 0.999 * slowest:
            notes.append("the slowest stage")
        if worker.share < 1:
            notes.append(f"its quota leaves {100 * worker.share:.0f} %")
        if stage.codec:
            rate = f"{8e-6 * stage.link_bytes_per_s:,.0f} Mbit/s and {1e3 * stage.link_latency_s:.2g} ms"
            notes.append(f"then {stage.codec} over {rate}: {1e3 * stage.wire_s:.2g} ms")
        yield f"{placement.worker} holds {placement.start}:{placement.stop}: {'; '.join(notes)}"


def _absent(cluster: Cluster, placements: Sequence[Placement]) -> Iterator[str]:
    used = {placement.worker for placement in placements}
    rest = [worker.name for worker in cluster.workers if worker.name not in used]
    if rest:
        shown = ", ".join(rest[:8]) + (f" and {len(rest) - 8} more" if len(rest) > 8 else "")
        yield f"left out, as any use of them makes it slower: {shown}"


def _more(settings: Optimal, model: ModelSpec, cluster: Cluster, workload: Workload, objective: float) -> Iterator[str]:
    """For one worker of each kind: the objective with another one like it, linked as it is."""
    kinds: dict[tuple[object, ...], WorkerInfo] = {}
    for worker in cluster.workers:
        speed = worker.speeds[0].times[0].layer_s if worker.speeds else 0.0
        kinds.setdefault((worker.device, worker.memory_total_bytes >> 30, worker.share, float(f"{speed:.1e}")), worker)
    for worker in list(kinds.values())[:6]:
        name = f"another {worker.name}"
        larger = replace(
            cluster,
            workers=(*cluster.workers, replace(worker, name=name)),
            links=(*cluster.links, *_copied(cluster.links, worker.name, name)),
        )
        try:
            cut = replace(settings, seconds=min(settings.seconds, _SECONDS)).cut(model, larger, workload)
        except PlanError:
            continue
        gain = 1 - (cut.objective or objective) / objective
        brings = f"{100 * gain:.1f} % less ({1e3 * (cut.objective or 0):.4g} ms)" if gain > 0.001 else "nothing"
        yield f"{name} would bring {brings}"


def _copied(links: Sequence[LinkInfo], like: str, name: str) -> Iterator[LinkInfo]:
    """The links of `like` for its copy, and the best of them between the two."""
    own = [link for link in links if like in (link.source, link.target)]
    for link in own:
        yield replace(
            link,
            source=name if link.source == like else link.source,
            target=name if link.target == like else link.target,
        )
    if own:
        best = min(own, key=lambda link: link.latency_s - link.bytes_per_s * 1e-12)
        yield replace(best, source=like, target=name)
        yield replace(best, source=name, target=like)
