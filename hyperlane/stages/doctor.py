"""doctor: `hyperlane doctor` lists workers and links, what is wrong with them, and what to do."""

import trio
from rich.console import Console
from rich.table import Table

from hyperlane.artifacts import Checkup, Cluster, Finding, LinkInfo, WorkerInfo
from hyperlane.cluster.checkup import checkup
from hyperlane.errors import PlanError
from hyperlane.partition import count, cut
from hyperlane.stages.cache import kv_bits
from hyperlane.stages.context import Context
from hyperlane.stages.workload import workload_of


async def run(context: Context) -> Checkup:
    findings = checkup(context.cluster)
    lacks = await _lack(context)
    return Checkup(findings=findings if lacks is None else (*findings, lacks))


def show(context: Context) -> None:
    console, cluster = Console(highlight=False), context.cluster
    console.print(_workers(cluster))
    if cluster.links:
        console.print(_links(cluster.links))
    findings = context.checkup.findings
    for one in findings:
        console.print(f"{one.subject}: {one.problem}; {one.advice}", markup=False, soft_wrap=True)
    if not findings:
        console.print("nothing is wrong")


async def _lack(context: Context) -> Finding | None:
    """Why the model cannot be placed on these workers, if so."""
    config, checkpoint = context.config, await context.checkpoint()
    from hyperlane.model.spec import read_spec  # reads torch, which by now is read

    bits = kv_bits(config, context.cluster.workers)
    spec = await trio.to_thread.run_sync(
        read_spec, checkpoint, config.model.dtype.value, config.quantization, bits, abandon_on_cancel=True
    )
    workload = workload_of(config, spec.max_positions, 0, context.cluster.workers)
    try:
        found = await trio.to_thread.run_sync(cut, config.partition, spec, context.cluster, workload)
        count(config.partition, found, spec, context.cluster, workload)
    except PlanError as error:
        return Finding(subject=spec.source, problem=str(error), advice="it cannot run here as configured")
    return None


def _workers(cluster: Cluster) -> Table:
    table = Table("worker", "device", "memory free", "reads", "quota", "load", "in runs", title="workers")
    for worker in cluster.workers:
        table.add_row(
            worker.name,
            worker.device,
            f"{worker.memory_free_bytes / 2**30:.1f} of {worker.memory_total_bytes / 2**30:.1f} GiB",
            _reads(worker),
            f"{100 * worker.share:.0f} %" if worker.share < 1 else "",
            f"{worker.load:.2f}",
            f"{100 * worker.decode_factor - 100:+.0f} %" if worker.decode_factor != 1 else "",
        )
    return table


def _reads(worker: WorkerInfo) -> str:
    for speed in worker.speeds:
        one = min((time for time in speed.times if time.phase == "decode"), key=lambda time: time.rows)
        return f"{speed.layer_bytes / one.layer_s / 1e9:.3g} GB/s"
    return "not timed"


def _links(links: tuple[LinkInfo, ...]) -> Table:
    table = Table("link", "rate", "latency", title="links")
    for link in links:
        rate = f"{8e-6 * link.bytes_per_s:,.3g} Mbit/s"
        table.add_row(f"{link.source} -> {link.target}", rate, f"{1e3 * link.latency_s:.2g} ms")
    return table
