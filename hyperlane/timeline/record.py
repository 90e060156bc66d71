"""What is recorded of a step. Times are nanoseconds of the recording machine's monotonic clock."""

from typing import NamedTuple


class StepRecord(NamedTuple):
    """One step at one worker, in the order in which its times pass."""

    step: int
    lane: int
    rows: int  # 0: slots were copied
    prefill: bool
    arrived_ns: int  # its frame had come as a whole
    taken_ns: int  # the worker turned to it: until then it queued
    decoded_ns: int
    started_ns: int  # compute began
    computed_ns: int
    encoding_ns: int
    encoded_ns: int
    sent_ns: int  # its result was with the kernel, or in the link's queue where the kernel had no room

    def shifted(self, offset_ns: int) -> "StepRecord":
        """On a clock that is `offset_ns` behind."""
        return self._replace(**{name: getattr(self, name) - offset_ns for name in TIMES})


TIMES = tuple(name for name in StepRecord._fields if name.endswith("_ns"))


class Trip(NamedTuple):
    """One step as the coordinator saw it."""

    step: int
    sending_ns: int
    sent_ns: int
    arrived_ns: int  # its result
    taken_ns: int


class Records(NamedTuple):
    """What a worker recorded, the latest last, and its clock when it was asked."""

    now_ns: int
    steps: tuple[StepRecord, ...]
