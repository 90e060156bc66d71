"""deploy: every worker gets its shard, and only the layers that it lacks."""

from collections.abc import Sequence

import trio
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from hyperlane.artifacts import Blob, Deployment, GpuWeights, Manifest, Placement, Plan, Shard, WorkerInfo
from hyperlane.control.client import ControlClient
from hyperlane.control.types import ShardSpec
from hyperlane.errors import ClusterError
from hyperlane.model.assemble import assemble, shard_blobs
from hyperlane.model.store import LayerStore
from hyperlane.quantization.auto import Auto
from hyperlane.quantization.none import NoQuantization
from hyperlane.report import describe
from hyperlane.stages import links, selftest, weights
from hyperlane.stages.context import Context
from hyperlane.stages.workload import workload_of
from hyperlane.worker.operators import OPERATORS_VERSION

FP16 = "float16"
"""What GPU workers compute in, but with quantization=none: ONNX Runtime's fused attention takes nothing wider there."""


async def run(context: Context) -> Deployment:
    """Deploy to all workers of the plan at once; WorkerError or StoreError names the one that failed."""
    plan, manifest, store = context.plan, context.manifest, context.store
    live = {worker.name: worker for worker in (await context.live()).workers}
    missing = [p.worker for p in plan.placements if p.worker not in live]
    if missing:
        raise ClusterError(
            f"the plan uses worker {missing[0]}, which was not found; run stages=[discover,plan,deploy,generate]"
        )
    manifests, chosen = await _manifests(context, [live[p.worker] for p in plan.placements])
    shards: dict[str, Shard] = {}
    columns = (TextColumn("deploy: {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=context.console, transient=True, disable=not context.console.is_terminal) as bar:

        async def one(placement: Placement) -> None:
            task = bar.add_task(placement.worker, total=None)
            worker = live[placement.worker]
            shards[placement.worker] = await _deploy(placement, worker, plan, manifests[worker.name], store, bar, task)

        async with trio.open_nursery() as nursery:
            for placement in plan.placements:
                nursery.start_soon(one, placement)
    chain = tuple(shards[placement.worker] for placement in plan.placements)
    tested = await selftest.run(context, chain)
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


async def _manifests(
    context: Context, workers: Sequence[WorkerInfo], ask: weights.Ask = weights.ask
) -> tuple[dict[str, Manifest], GpuWeights | None]:
    """What each worker's shard is made of: a GPU's is in FP16, exported here where the model's type is another.

    With quantization=none it is in the model's own type. With auto, which weights it has is measured here.
    """
    gpus, on_gpus, chosen = [worker for worker in workers if _is_gpu(worker)], context.manifest, None
    quantization, is_auto = context.config.quantization, isinstance(context.config.quantization, Auto)
    if gpus and is_auto:
        workload = workload_of(context.config, context.plan.model.max_positions, 0)
        quantization, chosen = await weights.choose(context, gpus, workload, len(workers), ask)
    stays = on_gpus.dtype == FP16 or isinstance(quantization, NoQuantization)
    if gpus and (is_auto or not stays):
        checkpoint = await context.checkpoint()
        from hyperlane.model.export import export  # reads torch, which by now is read

        on_gpus = await trio.to_thread.run_sync(export, checkpoint, context.store, FP16, quantization)
    return {worker.name: on_gpus if _is_gpu(worker) else context.manifest for worker in workers}, chosen


def _is_gpu(worker: WorkerInfo) -> bool:
    return worker.device.startswith("cuda")


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
    bar: Progress,
    task: TaskID,
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
        loaded = await client.load_shard(
            spec, store.path, progress=lambda sent, total: bar.update(task, completed=sent, total=total)
        )
    return Shard(
        worker=worker.name,
        start=placement.start,
        stop=placement.stop,
        digest=graph.sha256,
        control_address=worker.control_address,
        data_addresses=worker.data_addresses,
        loaded=loaded.loaded,
        sent_files=loaded.sent_files,
        sent_bytes=loaded.sent_bytes,
    )


def _graph(manifest: Manifest, store: LayerStore, placement: Placement, worker: WorkerInfo, plan: Plan) -> Blob:
    content = assemble(
        manifest,
        store,
        placement.start,
        placement.stop,
        operators=worker.operators == OPERATORS_VERSION,
        kv_bits=plan.model.kv_bits,
        fused=manifest.dtype == FP16 or not _is_gpu(worker),
    )
    return store.put(content)
