"""discover: the workers that answer, and why the others do not count."""

from pathlib import Path

from hyperlane.artifacts import Cluster, from_json
from hyperlane.cluster.simulated import Simulated
from hyperlane.errors import ClusterError, ConfigError
from hyperlane.stages import measure
from hyperlane.stages.context import Context


async def run(context: Context) -> Cluster:
    """Probe the cluster, or take the recorded one that `cluster.snapshot` names."""
    beyond = set(context.config.stages) - {"discover", "plan", "simulate"}
    if isinstance(context.config.cluster, Simulated) and beyond:
        raise ConfigError("cluster=simulated has no machines to run on; give stages=[discover,plan,simulate]")
    snapshot = context.config.cluster.snapshot
    cluster = _recorded(snapshot) if snapshot else await context.probe()
    if not cluster.workers:
        raise ClusterError(f"cluster.snapshot={snapshot} records no worker; give another")
    if snapshot or not measure.wanted(context.config):
        return cluster
    return await measure.measured(context, cluster)


def show(context: Context) -> None:
    cluster = context.cluster
    names = ", ".join(
        f"{worker.name} ({worker.device}, {worker.memory_free_bytes / 2**30:.1f} GiB free)"
        for worker in cluster.workers
    )
    context.console.print(f"discover: {names}")
    for line in () if isinstance(context.config.cluster, Simulated) else measure.lines(cluster):
        context.console.print(f"discover: {line}")
    for rejected in cluster.rejected:
        context.console.print(f"discover: {rejected.name} at {rejected.address} rejected: {rejected.reason}")


def _recorded(snapshot: str) -> Cluster:
    path = Path(snapshot).expanduser()
    try:
        return from_json(Cluster, path.read_text())
    except OSError as error:
        raise ConfigError(f"cluster.snapshot={path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"cluster.snapshot={path} is {error}; take a run's discover/cluster.json") from error
