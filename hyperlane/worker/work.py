"""A step on its way through a worker."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from hyperlane.timeline.record import StepRecord
from hyperlane.transport.frame import Frame
from hyperlane.worker.gpu import DeviceRows
from hyperlane.worker.result import StepResult


@dataclass(slots=True)
class Work:
    """`frame` is what came in, and in the end what goes out; times are as in StepRecord."""

    frame: Frame
    arrived_ns: int
    taken_ns: int
    rows: NDArray[Any] | DeviceRows | None = None  # token ids [R] or hidden states [R, D]
    result: StepResult | None = None
    gpu_ns: Callable[[], tuple[int, int]] | None = None  # as in the result
    decoded_ns: int = 0
    started_ns: int = 0
    computed_ns: int = 0
    encoding_ns: int = 0
    encoded_ns: int = 0

    def record(self, rows: int, prefill: bool, sent_ns: int) -> StepRecord:
        frame = self.frame
        return StepRecord(
            frame.step,
            frame.lane,
            rows,
            prefill,
            self.arrived_ns,
            self.taken_ns,
            self.decoded_ns,
            self.started_ns,
            self.computed_ns,
            self.encoding_ns,
            self.encoded_ns,
            sent_ns,
        )
