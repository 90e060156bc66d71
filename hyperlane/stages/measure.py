"""Times the workers on the model's own layers, and every path between them, for the planner."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING

import trio

from hyperlane.artifacts import Cluster, CodecSpeed, LinkInfo, ModelSpec, StepTime, WorkerInfo, WorkerSpeed
from hyperlane.cluster.simulated import Simulated
from hyperlane.config import Config, Measure
from hyperlane.control.client import ControlClient
from hyperlane.control.types import ComputeSpeed, Probe, StepCase
from hyperlane.errors import HyperlaneError, one_line
from hyperlane.partition.optimal import Optimal
from hyperlane.stages.cache import kv_bits
from hyperlane.stages.context import Context
from hyperlane.stages.kinds import GraphKind, graph_kind
from hyperlane.stages.learning import with_experience
from hyperlane.transport.codec import CODEC_NAMES

if TYPE_CHECKING:
    from hyperlane.model.source import Checkpoint

MOST_LINKED = 12  # workers; of more the links are not timed one by one
LONG_PAST = 512
MOST_CROWDED = 3.0  # times longer beside others: more is an accident

Probes = tuple[tuple[int, Probe], ...]
"""Several layers, one, and one with the head; each with how many layers it has."""

log = logging.getLogger(__name__)


def wanted(config: Config) -> bool:
    """Whether this run's plan depends on figures."""
    if isinstance(config.cluster, Simulated):
        return False
    if config.measure is Measure.auto:
        planned = isinstance(config.partition, Optimal) and set(config.stages) != {"discover"}
        return planned or "doctor" in config.stages
    return config.measure is Measure.always


async def measured(context: Context, cluster: Cluster) -> Cluster:
    """`cluster` with speeds and links. A worker that cannot be timed stays without figures, and a warning says why."""
    probes, spec = await _probes(context, cluster.workers)

    def of_kind(worker: WorkerInfo) -> Probes:
        return probes[graph_kind(worker, context.config.model.dtype.value, context.config.quantization)]

    by_host: dict[str, list[WorkerInfo]] = {}
    for worker in cluster.workers:
        by_host.setdefault(worker.control_address.rpartition(":")[0], []).append(worker)
    found: dict[str, WorkerInfo] = {}

    async def of_host(workers: Sequence[WorkerInfo]) -> None:
        for worker in workers:  # one after another: they share the machine
            found[worker.name] = await _timed(worker, of_kind(worker), spec)

    async with trio.open_nursery() as nursery:
        for workers in by_host.values():
            nursery.start_soon(of_host, workers)
    links = await _links(cluster.workers) if 1 < len(cluster.workers) <= MOST_LINKED else ()
    workers = [await _crowded(found[w.name], list(found.values()), of_kind(w)) for w in cluster.workers]
    return with_experience(replace(cluster, workers=tuple(workers), links=links), spec, context.config)


def lines(cluster: Cluster) -> Iterable[str]:
    """What was measured, for people."""
    for worker in cluster.workers:
        for speed in worker.speeds:
            one = next(t for t in speed.times if t.phase == "decode" and t.rows == 1)
            most = max((t for t in speed.times if t.phase == "prefill"), key=lambda t: t.rows)
            quota = f", {100 * worker.share:.0f} % of its threads by quota" if worker.share < 1 else ""
            usual = f", usually {100 * worker.decode_factor - 100:+.0f} % in a run" if worker.decode_factor != 1 else ""
            yield (
                f"{worker.name} reads {speed.layer_bytes / one.layer_s / 1e9:.3g} GB/s of {speed.weights} weights, "
                f"computes {most.rows / most.layer_s * speed.layer_bytes / 1e9:.3g} G row bytes/s{quota}{usual}"
            )
    for link in cluster.links:
        rate = f"{8e-6 * link.bytes_per_s:,.3g} Mbit/s"
        yield f"{link.source} -> {link.target} {rate}, {1e3 * link.latency_s:.2g} ms"


async def _probes(context: Context, workers: Sequence[WorkerInfo]) -> tuple[dict[GraphKind, Probes], ModelSpec]:
    """For each kind of graph that a worker would run; and the sizes."""
    config, checkpoint = context.config, await context.checkpoint()
    dtype = config.model.dtype.value
    from hyperlane.model.spec import read_spec  # reads torch, which by now is read

    bits = kv_bits(config, workers)
    spec = await trio.to_thread.run_sync(
        read_spec, checkpoint, dtype, config.quantization, bits, abandon_on_cancel=True
    )
    cases = _cases(config, spec, len(workers))
    kinds = dict.fromkeys(graph_kind(worker, dtype, config.quantization) for worker in workers)
    return {kind: await _probes_of(context, checkpoint, kind, spec, bits, cases) for kind in kinds}, spec


async def _probes_of(
    context: Context,
    checkpoint: "Checkpoint",
    kind: GraphKind,
    spec: ModelSpec,
    bits: int,
    cases: tuple[tuple[StepCase, ...], tuple[StepCase, ...]],
) -> Probes:
    """Graphs of several layers, of one, and of one with the head, each with its cases."""
    from hyperlane.model.probe import probe_graphs  # reads torch, which by now is read

    config, (few, more) = context.config, cases
    make = partial(probe_graphs, operators=kind.operators, kv_bits=bits, fused=kind.fused, on_gpu=kind.on_gpu)
    graphs = await trio.to_thread.run_sync(
        make, checkpoint, context.store, kind.dtype, config.quantization, abandon_on_cancel=True
    )
    chunk = max(case.rows for case in few)
    codec = config.transport.codec.name
    codecs = (codec,) if codec in CODEC_NAMES else ("raw", "h8", "int4")
    probes = []
    for graph in graphs:
        first = graph is graphs[0]
        probe = Probe(
            graph=graph.graph,
            weights=graph.weights,
            last=graph.last,
            dtype=kind.dtype,
            width=spec.hidden_size,
            context=max(case.past + case.rows for case in (*few, *more)) + 1,
            cases=(*few, *more) if first else few,
            codecs=codecs if first else (),
            codec_rows=(1, chunk) if first else (),
        )
        probes.append((graph.layers, probe))
    return tuple(probes)


def _cases(config: Config, spec: ModelSpec, workers: int) -> tuple[tuple[StepCase, ...], tuple[StepCase, ...]]:
    """Steps of all probes; and those that only tell what a longer past costs."""
    generate = config.generate
    context = min(generate.context, spec.max_positions)
    lanes = {min(generate.lanes or hops, generate.slots) for hops in range(1, workers + 1)}
    rows = sorted({1, *(-(-generate.slots // n) for n in lanes)})
    chunk = max(2, min(generate.prefill_chunk, context // 2))
    past = min(64, context // 4)
    few = [_case("decode", r, past) for r in rows]
    few += [_case("prefill", r, 0) for r in sorted({min(16, chunk), max(2, chunk // 4), chunk})]
    far = min(LONG_PAST, context - chunk - 1)
    more = [_case("decode", rows[-1], far)] if far > past else []
    more += [_case("prefill", chunk, far)] if far > 0 else []
    return tuple(few), tuple(more)


async def _timed(worker: WorkerInfo, probes: Sequence[tuple[int, Probe]], spec: ModelSpec) -> WorkerInfo:
    try:
        with ControlClient(worker.control_address, worker.name) as client:
            speeds = [await client.measure_compute(probe) for _, probe in probes]
    except HyperlaneError as error:
        log.warning("%s was not timed: %s", worker.name, one_line(error))
        return worker
    many = speeds[0]
    return replace(
        worker,
        speeds=(_speed(probes, speeds, spec),),
        codecs=tuple(
            CodecSpeed(
                codec=time.codec,
                rows=time.rows,
                width=spec.hidden_size,
                encode_s=time.encode_s,
                decode_s=time.decode_s,
                payload_bytes=time.payload_bytes,
            )
            for time in many.codecs
        ),
        share=many.share,
        load=many.load,
        machine=many.machine,
        cores=many.cores,
        threads=many.threads,
    )


async def _crowded(
    worker: WorkerInfo, workers: Sequence[WorkerInfo], probes: Sequence[tuple[int, Probe]]
) -> WorkerInfo:
    """With how much longer steps take while the other workers of its machine compute too."""
    beside = sum(other.machine == worker.machine for other in workers)
    at_once = min(beside, worker.cores // max(worker.threads, 1))
    if not worker.machine or at_once < 2:
        return worker
    probe = probes[0][1]
    decode = next(case for case in probe.cases if case.phase == "decode")
    prefill = [case for case in probe.cases if case.phase == "prefill" and not case.past]
    cases = (decode, prefill[len(prefill) // 2])
    crowded = replace(probe, cases=cases, codecs=(), codec_rows=(), at_once=at_once)
    alone = replace(crowded, at_once=1)
    try:
        with ControlClient(worker.control_address, worker.name) as client:
            seconds = [(await client.measure_compute(one)).seconds for one in (alone, crowded)]
    except HyperlaneError as error:
        log.warning("%s was not timed beside others: %s", worker.name, one_line(error))
        return worker
    decode_ratio, prefill_ratio = (min(max(b / a, 1.0), MOST_CROWDED) for a, b in zip(*seconds, strict=True))
    return replace(worker, crowded_decode=decode_ratio, crowded_prefill=prefill_ratio)


def _speed(probes: Sequence[tuple[int, Probe]], speeds: Sequence[ComputeSpeed], spec: ModelSpec) -> WorkerSpeed:
    """A layer is what further layers add; a step, what one layer takes beyond; the head, what it adds to that."""
    (layers, probe), (_, few) = probes[0], probes[1]
    many, one, head = (speed.seconds for speed in speeds)
    times = []
    layer_s: dict[StepCase, float] = {}
    for index, case in enumerate(probe.cases):
        twin = few.cases.index(case) if case in few.cases else _like(few.cases, case)
        alone_s = one[twin] if case in few.cases else one[twin] + (many[index] - many[twin]) / layers
        layer_s[case] = max((many[index] - alone_s) / (layers - 1), 0.2 * many[index] / layers)
        times.append(
            StepTime(
                phase=case.phase,
                rows=case.rows,
                past=case.past,
                layer_s=layer_s[case],
                head_s=max(head[twin] - one[twin], 0.0),
            )
        )
    first = few.cases[0]
    return WorkerSpeed(
        weights=spec.quantization,
        layer_bytes=spec.layer_bytes[min(1, spec.layers - 1)],
        head_bytes=spec.head_bytes,
        kv_bytes_per_token=spec.kv_bytes_per_token[min(1, spec.layers - 1)],
        step_s=max(one[0] - layer_s[first], 0.0),
        times=tuple(times),
    )


def _like(cases: Sequence[StepCase], case: StepCase) -> int:
    """The same step with another past."""
    return next(i for i, c in enumerate(cases) if (c.phase, c.rows) == (case.phase, case.rows))


async def _links(workers: Sequence[WorkerInfo]) -> tuple[LinkInfo, ...]:
    """Each direction in its turn, as they may share a wire."""
    found = []
    for source, target in permutations(workers, 2):
        try:
            with ControlClient(source.control_address, source.name) as client:
                path = await client.measure_path(target.control_address, target.data_addresses)
        except HyperlaneError as error:
            log.warning("%s -> %s was not timed: %s", source.name, target.name, one_line(error))
            continue
        found.append(
            LinkInfo(
                source=source.name,
                target=target.name,
                latency_s=path.latency_s,
                bytes_per_s=path.bytes_per_s,
                burst_bytes=path.burst_bytes,
            )
        )
    return tuple(found)


def _case(phase: str, rows: int, past: int) -> StepCase:
    return StepCase(phase=phase, rows=rows, past=past)
