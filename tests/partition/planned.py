"""A plan of a made-up model on made-up workers."""

from hyperlane.artifacts import Cluster, ModelSpec, Plan
from hyperlane.config import Config
from hyperlane.partition import count, cut
from hyperlane.partition.predict import predict
from hyperlane.stages.workload import workload_of


def planned(config: Config, model: ModelSpec, cluster: Cluster, prompt_tokens: int) -> Plan:
    """What the stage plan makes of it."""
    workload = workload_of(config, model.max_positions, prompt_tokens, cluster.workers)
    found = cut(config.partition, model, cluster, workload)
    return Plan(
        model=model,
        partition=config.choices["partition"],
        placements=count(config.partition, found, model, cluster, workload),
        codecs=(config.transport.codec.name,) * (len(found.ranges) - 1),
        slots=workload.slots,
        context=workload.context,
        predicted=predict(model, cluster, workload, found.ranges),
    )
