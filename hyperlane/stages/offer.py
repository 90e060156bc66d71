"""After a run in which a worker was slower than predicted: what a new plan would bring."""

from dataclasses import replace

from hyperlane.artifacts import Accuracy, Cluster, Plan
from hyperlane.config import Config
from hyperlane.errors import PlanError
from hyperlane.partition import Range, cut
from hyperlane.partition.calibration import calibrated, learnt
from hyperlane.partition.optimal import Optimal, Placing
from hyperlane.stages.workload import workload_of

WORTH = 0.05  # of the objective: less is not worth moving layers


def offer(plan: Plan, cluster: Cluster, accuracy: Accuracy, config: Config) -> str | None:
    """A line for the user; None where all went about as predicted, or where a new plan would bring little."""
    slow = [
        f"{stage.worker} took {stage.compute_measured_s / stage.compute_predicted_s:.2g} times its predicted compute"
        for stage in accuracy.stages
        if stage.phase == "decode" and stage.compute_measured_s > config.offer_above * stage.compute_predicted_s
    ]
    if not slow or not isinstance(config.partition, Optimal) or plan.predicted is None:
        return None
    model, workload = plan.model, workload_of(config, plan.model.max_positions, plan.predicted.prompt_tokens)
    workload = replace(workload, context=plan.context)
    now = calibrated(cluster, learnt(cluster, {}, accuracy))
    try:
        found = cut(config.partition, model, now, workload)
    except PlanError:
        return None
    old = tuple(Range(p.worker, p.start, p.stop) for p in plan.placements)
    placing = Placing(config.partition, model, now, workload)
    old_s, new_s = placing.value(placing.chain_of(old)), found.objective
    if found.ranges == old or new_s is None or new_s > (1 - WORTH) * old_s:
        return None
    layers = ", ".join(f"{item.worker} {item.start}:{item.stop}" for item in found.ranges)
    return (
        f"{'; '.join(slow)}. A new plan, {layers}, should be {100 * (1 - new_s / old_s):.0f} % better by "
        f"partition.objective={config.partition.objective.value}; run again for it"
    )
