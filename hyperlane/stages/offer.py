"""After a run in which a worker was slower than predicted: what a new plan would bring."""

from hyperlane.artifacts import Accuracy, Cluster, Plan
from hyperlane.config import Config, Replanning
from hyperlane.partition.better import better
from hyperlane.partition.calibration import calibrated, learnt
from hyperlane.partition.optimal import Optimal
from hyperlane.stages.workload import workload_of_plan


def offer(plan: Plan, cluster: Cluster, accuracy: Accuracy, config: Config) -> str | None:
    """A line for the user; None where all went about as predicted, or where a new plan would bring little."""
    replan, strategy = config.replan, config.partition
    slow = [
        f"{stage.worker} took {stage.compute_measured_s / stage.compute_predicted_s:.2g} times its predicted compute"
        for stage in accuracy.stages
        if stage.phase == "decode" and stage.compute_measured_s > replan.above * stage.compute_predicted_s
    ]
    if replan.mode is Replanning.off or not slow or not isinstance(strategy, Optimal) or plan.predicted is None:
        return None
    now, workload = calibrated(cluster, learnt(cluster, {}, accuracy)), workload_of_plan(config, plan, cluster)
    found = better(strategy, plan.model, now, workload, plan.placements, replan.gain)
    if found is None:
        return None
    return f"{'; '.join(slow)}. A new plan, {found} by partition.objective={strategy.objective.value}; run again for it"
