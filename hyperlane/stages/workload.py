"""What a configuration asks of a chain, in the planner's terms."""

from collections.abc import Sequence
from dataclasses import replace

from hyperlane.artifacts import Cluster, Plan, WorkerInfo
from hyperlane.config import Config
from hyperlane.partition.memory import Workload
from hyperlane.stages.kinds import have_operators
from hyperlane.stages.selftest import AUTO
from hyperlane.transport.phases import EXACT_FIRST


def workload_of(config: Config, max_positions: int, prompt_tokens: int, workers: Sequence[WorkerInfo]) -> Workload:
    """What the configuration asks of a chain; a prompt of 0 tokens is not known yet, and taken as one chunk."""
    generate, codec = config.generate, config.transport.codec.name
    context = min(generate.context, max_positions)
    chunk = min(generate.prefill_chunk, generate.context)
    return Workload(
        slots=generate.slots,
        context=context,
        prefill_chunk=chunk,
        lanes=generate.lanes,
        prompt_tokens=prompt_tokens or min(chunk, context),
        codecs=EXACT_FIRST if codec == AUTO else (codec,),
        scores=not have_operators(workers),
    )


def workload_of_plan(config: Config, plan: Plan, cluster: Cluster) -> Workload:
    """What a plan was made for."""
    prompt_tokens = 0 if plan.predicted is None else plan.predicted.prompt_tokens
    workload = workload_of(config, plan.model.max_positions, prompt_tokens, cluster.workers)
    return replace(workload, slots=plan.slots, context=plan.context)
