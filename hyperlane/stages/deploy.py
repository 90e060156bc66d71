"""deploy: every worker gets its shard, and only the layers that it lacks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import trio
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from hyperlane.artifacts import Blob, Deployment, GpuWeights, Manifest, Placement, Plan, Shard, WorkerInfo
from hyperlane.control.client import ControlClient
from hyperlane.control.types import ShardSpec
from hyperlane.errors import ClusterError
from hyperlane.model.assemble import assemble, is_ragged, shard_blobs
from hyperlane.model.store import LayerStore
from hyperlane.quantization import Quantization
from hyperlane.quantization.auto import Auto
from hyperlane.quantization.none import NoQuantization
from hyperlane.report import describe
from hyperlane.stages import links, selftest, weights
from hyperlane.stages.context import Context
from hyperlane.stages.kinds import FP16, has_operators, is_gpu, kind_of
from hyperlane.stages.picture import draw_plan
from hyperlane.stages.workload import workload_of

Seen = Callable[[int, int], None]
"""(sent bytes, total bytes) of what one worker lacks."""


async def run(context: Context) -> Deployment:
    """Deploy to all workers of the plan at once; WorkerError or StoreError names the one that failed."""
    columns = (TextColumn("deploy: {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=context.console, transient=True, disable=not context.console.is_terminal) as bar:
        sent = await _send(context, context.plan, lambda name: _shown(bar, bar.add_task(name, total=None)))
    deployment = await _deployment(context, context.plan, *sent)
    await _note(context, deployment)
    return deployment


async def deploy(context: Context, plan: Plan) -> Deployment:
    """The same for another plan than the run's, and nothing is shown: a text may be on its way to the terminal."""
    return await _deployment(context, plan, *await _send(context, plan, lambda name: _unseen))


async def send_ahead(context: Context, plan: Plan) -> None:
    """Send what the workers of `plan` lack while they go on with what they hold."""
    await _send(context, plan, lambda name: _unseen, files_only=True)


async def _send(
    context: Context, plan: Plan, progress: Callable[[str], Seen], *, files_only: bool = False
) -> tuple[tuple[Shard, ...], GpuWeights | None]:
    """Each worker's part, at the same time; `progress(worker)` is told what was sent of it."""
    store, live = context.store, {worker.name: worker for worker in (await context.live()).workers}
    missing = [p.worker for p in plan.placements if p.worker not in live]
    if missing:
        raise ClusterError(
            f"the plan uses worker {missing[0]}, which was not found; run stages=[discover,plan,deploy,generate]"
        )
    manifests, chosen = await _manifests(context, [live[p.worker] for p in plan.placements])
    shards: dict[str, Shard] = {}

    async def one(placement: Placement) -> None:
        worker, seen = live[placement.worker], progress(placement.worker)
        shards[worker.name] = await _deploy(placement, worker, plan, manifests[worker.name], store, seen, files_only)

    async with trio.open_nursery() as nursery:
        for placement in plan.placements:
            nursery.start_soon(one, placement)
    return tuple(shards[placement.worker] for placement in plan.placements), chosen


async def _deployment(context: Context, plan: Plan, chain: tuple[Shard, ...], chosen: GpuWeights | None) -> Deployment:
    """The loaded shards with what crosses their boundaries, tested where the codec asks for it."""
    manifest = context.manifest
    tested = await selftest.run(context, plan, chain)
    deployment = Deployment(
        key=manifest.key,
        shards=chain,
        boundaries=selftest.untested(plan) if tested is None else tested.boundaries,
        kl=None if tested is None else tested.kl,
        gpu_weights=chosen,
        slots=plan.slots,
        context=plan.context,
        hidden_size=manifest.hidden_size,
        vocab_size=manifest.vocab_size,
        dtype=manifest.dtype,
    )
    if selftest.AUTO not in plan.codecs:
        return deployment
    return await trio.to_thread.run_sync(links.choose, deployment, context.config)


async def _note(context: Context, deployment: Deployment) -> None:
    """The plan, as JSON and as a picture, says which codecs passed."""
    plan = replace(context.plan, boundaries=deployment.boundaries)
    if plan == context.plan:
        return
    context.artifacts["plan"] = plan
    context.run_dir.revise("plan", "plan.json", plan)
    context.run_dir.write_text("plan", "plan.svg", draw_plan(plan, await context.live()))


def _shown(bar: Progress, task: TaskID) -> Seen:
    return lambda sent, total: bar.update(task, completed=sent, total=total)


def _unseen(sent_bytes: int, total_bytes: int) -> None: ...


async def _manifests(
    context: Context, workers: Sequence[WorkerInfo], ask: weights.Ask = weights.ask
) -> tuple[dict[str, Manifest], GpuWeights | None]:
    """What each worker's shard is made of: a GPU's is in FP16, exported here where the model's type is another.

    With quantization=none it is in the model's own type. With auto, which weights it has is measured here.
    """
    config, manifest = context.config, context.manifest
    gpus, quantization, chosen = [worker for worker in workers if is_gpu(worker)], config.quantization, None
    if gpus and isinstance(quantization, Auto):
        quantization, chosen = await _chosen(context, workers, gpus, ask)
    elif not gpus or manifest.dtype == FP16 or isinstance(quantization, NoQuantization):
        return {worker.name: manifest for worker in workers}, None
    checkpoint = await context.checkpoint()
    from hyperlane.model.export import export  # reads torch, which by now is read

    half = await trio.to_thread.run_sync(export, checkpoint, context.store, FP16, quantization)
    return {worker.name: half if is_gpu(worker) else manifest for worker in workers}, chosen


async def _chosen(
    context: Context, workers: Sequence[WorkerInfo], gpus: Sequence[WorkerInfo], ask: weights.Ask
) -> tuple[Quantization, GpuWeights]:
    """As the GPUs hold their weights already where layers move in a run; else measured."""
    held = context.artifacts.get("deploy")
    if isinstance(held, Deployment) and held.gpu_weights is not None:
        return weights.quantization_of(held.gpu_weights), held.gpu_weights
    workload = workload_of(context.config, context.plan.model.max_positions, 0, workers)
    return await weights.choose(context, gpus, workload, len(workers), ask)


def show(context: Context) -> None:
    for shard in context.deployment.shards:
        what = (
            f"{shard.sent_files} files, {shard.sent_bytes / 2**20:,.1f} MiB sent" if shard.loaded else "already held it"
        )
        context.console.print(f"deploy: {shard.worker} layers {shard.start}:{shard.stop}, {what}")
    if context.deployment.gpu_weights is not None:
        context.console.print(f"deploy: {weights.describe(context.deployment.gpu_weights)}")
    for boundary in context.deployment.boundaries:
        context.console.print(f"deploy: after layer {boundary.layer}: {describe(boundary)}")
    if context.deployment.kl is not None:
        at_most = "at most " if selftest.AUTO in context.plan.codecs else ""
        context.console.print(f"deploy: KL of the chain against raw: {at_most}{context.deployment.kl:.2g}")


async def _deploy(
    placement: Placement,
    worker: WorkerInfo,
    plan: Plan,
    manifest: Manifest,
    store: LayerStore,
    seen: Seen,
    files_only: bool,
) -> Shard:
    graph = await trio.to_thread.run_sync(_graph, manifest, store, placement, worker, plan)
    spec = ShardSpec(
        key=manifest.key,
        graph=graph,
        weights=shard_blobs(manifest, placement.start, placement.stop),
        start=placement.start,
        stop=placement.stop,
        first=placement.start == 0,
        last=placement.stop == manifest.layers,
        dtype=manifest.dtype,
        slots=plan.slots,
        context=plan.context,
    )
    with ControlClient(worker.control_address, worker.name) as client:
        loaded = await client.load_shard(spec, store.path, progress=seen, files_only=files_only)
    return Shard(
        worker=worker.name,
        start=placement.start,
        stop=placement.stop,
        digest=graph.sha256,
        ragged=is_ragged(manifest, operators=has_operators(worker)),
        control_address=worker.control_address,
        data_addresses=worker.data_addresses,
        loaded=loaded.loaded,
        sent_files=loaded.sent_files,
        sent_bytes=loaded.sent_bytes,
    )


def _graph(manifest: Manifest, store: LayerStore, placement: Placement, worker: WorkerInfo, plan: Plan) -> Blob:
    kind = kind_of(worker, manifest.dtype)
    content = assemble(
        manifest,
        store,
        placement.start,
        placement.stop,
        operators=kind.operators,
        kv_bits=plan.model.kv_bits,
        fused=kind.fused,
        on_gpu=kind.on_gpu,
    )
    return store.put(content)
