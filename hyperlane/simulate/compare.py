"""A run next to what the cluster's figures say of it: its own requests, simulated. Pure."""

from collections.abc import Sequence
from statistics import median

from hyperlane.artifacts import (
    Accuracy,
    Cluster,
    Deployment,
    GeneratedText,
    Generation,
    ModelSpec,
    StageAccuracy,
    StepTimes,
)
from hyperlane.config import Config
from hyperlane.partition import Range
from hyperlane.simulate.chain import Spent
from hyperlane.simulate.costs import ChainCosts
from hyperlane.simulate.serve import Replica, Request, simulate_phases


def compare(
    model: ModelSpec, cluster: Cluster, deployment: Deployment, generation: Generation, config: Config
) -> Accuracy | None:
    """None where the run did what the simulation knows nothing of: drafts, or prompts that a slot held already."""
    texts = generation.requests
    if any(one.drafted_tokens or one.cached_tokens or not one.token_ids for one in texts):
        return None
    found = simulate_phases(replica(model, cluster, deployment, config), requests(texts))
    stages = [
        _stage(worker.name, times, spent)
        for index, worker in enumerate(generation.workers)
        for times in worker.times
        if (spent := [one.spent[0][index][times.phase] for one in found if times.phase in one.spent[0][index]])
    ]
    return Accuracy(
        requests=len(texts),
        step_predicted_s=median(_median([served.token_s for served in one.served]) for one in found),
        step_measured_s=_median([_token_s(one) for one in texts]),
        compute_predicted_s=_decode_s(stages, "compute_predicted_s"),
        compute_measured_s=_decode_s(stages, "compute_measured_s"),
        ttft_predicted_s=median(median(served.ttft_s for served in one.served) for one in found),
        ttft_measured_s=median(one.ttft_s for one in texts),
        stages=tuple(stages),
    )


def replica(model: ModelSpec, cluster: Cluster, deployment: Deployment, config: Config) -> Replica:
    """The chain that is deployed, as it will be driven."""
    ranges = [Range(shard.worker, shard.start, shard.stop) for shard in deployment.shards]
    carried = {
        "prefill": [boundary.prefill or boundary.codec for boundary in deployment.boundaries],
        "decode": [boundary.decode or boundary.codec for boundary in deployment.boundaries],
    }
    return Replica(
        costs=ChainCosts.of(model, cluster, ranges, carried),
        slots=deployment.slots,
        lanes=min(config.generate.lanes or len(ranges), deployment.slots),
        context=deployment.context,
        prefill_chunk=config.generate.prefill_chunk,
    )


def requests(texts: Sequence[GeneratedText]) -> list[Request]:
    """All at once."""
    return [Request(0.0, len(text.prompt_token_ids), len(text.token_ids)) for text in texts]


def _stage(worker: str, times: StepTimes, spent: Sequence[Spent]) -> StageAccuracy:
    steps = sum(one.steps for one in spent)
    return StageAccuracy(
        worker=worker,
        phase=times.phase,
        steps=times.steps,
        compute_predicted_s=sum(one.compute_s for one in spent) / steps,
        compute_measured_s=times.compute_s,
        wire_predicted_s=sum(one.wire_s for one in spent) / steps,
        wire_measured_s=times.wire_s,
    )


def _decode_s(stages: Sequence[StageAccuracy], what: str) -> float:
    return sum(float(getattr(stage, what)) for stage in stages if stage.phase == "decode")


def _token_s(text: GeneratedText) -> float:
    return 1 / text.decode_tokens_per_s if text.decode_tokens_per_s else 0.0


def _median(values: Sequence[float]) -> float:
    """Of those that are there: a lone token has no step."""
    return median([value for value in values if value] or [0.0])
