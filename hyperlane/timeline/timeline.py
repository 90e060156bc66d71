"""All records of a run on one clock, the coordinator's, and the shares and means that they give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from hyperlane.artifacts import StepTimes
from hyperlane.timeline.record import StepRecord, Trip

PHASES = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """The steps of one worker, in the order in which it sent them."""

    name: str
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The workers in chain order, and the steps as the coordinator saw them."""

    workers: tuple[WorkerLine, ...]
    trips: tuple[Trip, ...]

    def part(self, numbers: Sequence[int]) -> "Timeline":
        """Only these steps."""
        kept = frozenset(numbers)
        lines = tuple(replace(w, steps=tuple(s for s in w.steps if s.step in kept)) for w in self.workers)
        return Timeline(lines, tuple(trip for trip in self.trips if trip.step in kept))

    def arrivals(self, index: int) -> dict[int, int]:
        """When each step's frame had come to where worker `index` sends, by step."""
        if index + 1 < len(self.workers):
            return {step.step: step.arrived_ns for step in self.workers[index + 1].steps}
        return {trip.step: trip.arrived_ns for trip in self.trips}


def busy_shares(timeline: Timeline) -> tuple[float | None, ...]:
    """Of each worker: how much of the time it computed, from the first compute of any worker to the last."""
    steps = [step for line in timeline.workers for step in line.steps]
    if not steps:
        return (None,) * len(timeline.workers)
    elapsed_ns = max(step.computed_ns for step in steps) - min(step.started_ns for step in steps)
    if elapsed_ns <= 0:
        return (None,) * len(timeline.workers)
    return tuple(
        sum(step.computed_ns - step.started_ns for step in line.steps) / elapsed_ns for line in timeline.workers
    )


def step_times(timeline: Timeline) -> tuple[tuple[StepTimes, ...], ...]:
    """Of each worker: the mean times of its steps, by phase."""
    return tuple(_of_worker(timeline, index) for index in range(len(timeline.workers)))


def _of_worker(timeline: Timeline, index: int) -> tuple[StepTimes, ...]:
    steps, arrivals = timeline.workers[index].steps, timeline.arrivals(index)
    bubbles_ns = _bubbles_ns(steps)
    found = []
    for phase in PHASES:
        of_phase = [step for step in steps if step.rows and step.prefill == (phase == "prefill")]
        if of_phase:
            found.append(_means(phase, of_phase, arrivals, bubbles_ns))
    return tuple(found)


def _means(phase: str, steps: Sequence[StepRecord], arrivals: dict[int, int], bubbles_ns: dict[int, int]) -> StepTimes:
    def mean_s(time_ns: Callable[[StepRecord], int]) -> float:
        return sum(max(0, time_ns(step)) for step in steps) / len(steps) / 1e9

    return StepTimes(
        phase=phase,
        steps=len(steps),
        rows=sum(step.rows for step in steps) / len(steps),
        compute_s=mean_s(lambda step: step.computed_ns - step.started_ns),
        encode_s=mean_s(lambda step: step.encoded_ns - step.encoding_ns),
        wire_s=mean_s(lambda step: arrivals.get(step.step, step.sent_ns) - step.encoded_ns),
        decode_s=mean_s(lambda step: step.decoded_ns - step.taken_ns),
        queue_s=mean_s(lambda step: step.taken_ns - step.arrived_ns),
        bubble_s=mean_s(lambda step: bubbles_ns[step.step]),
    )


def _bubbles_ns(steps: Sequence[StepRecord]) -> dict[int, int]:
    """By step: how long the worker had nothing to do before it."""
    bubbles = {step.step: max(0, step.taken_ns - before.sent_ns) for before, step in pairwise(steps)}
    return {steps[0].step: 0, **bubbles} if steps else {}
