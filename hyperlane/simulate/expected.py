"""What steps took, of what the figures say: pure."""

from collections.abc import Mapping, Sequence

from hyperlane.generate.step import Step
from hyperlane.simulate.costs import ChainCosts
from hyperlane.timeline.record import StepRecord

LEAST_STEPS = 4
"""Fewer may be an accident."""


def ratio(costs: ChainCosts, stage: int, steps: Mapping[int, Step], records: Sequence[StepRecord]) -> float | None:
    """Measured by expected compute of a worker's decode steps; None where there were too few.

    A worker that others of its machine hinder, or that is at its CPU quota, may take as long as that explains.
    """
    decode = [record for record in records if record.rows and not record.prefill and record.step in steps]
    if len(decode) < LEAST_STEPS:
        return None
    expected_s = sum(longest_s(costs, stage, steps[record.step]) for record in decode)
    return sum(record.computed_ns - record.started_ns for record in decode) / 1e9 / expected_s


def longest_s(costs: ChainCosts, stage: int, step: Step) -> float:
    """What a step may take on one worker."""
    own = costs.stages[stage]
    beside = [other.worker.machine for other in costs.stages].count(own.worker.machine) > 1 and own.worker.machine
    return own.compute_s(step) * (own.crowded(step) if beside else 1.0) / own.worker.share
