"""What a worker is made of, given from outside, so that it is tested without sockets or ONNX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from numpy.typing import NDArray

from hyperlane.control.types import LinkCounters, LinkSpeed, ShardSpec, Wiring
from hyperlane.timeline.record import StepRecord
from hyperlane.worker.codecs import EpochCodecs
from hyperlane.worker.decode_call import DecodeCall
from hyperlane.worker.gpu import DeviceRows
from hyperlane.worker.result import StepResult as StepResult  # for those who write parts


class Session(Protocol):
    """A loaded shard with its keys and values."""

    def run(self, runs: Sequence[Any], rows: NDArray[Any] | DeviceRows, want_logits: bool) -> StepResult: ...

    def copy(self, source: int, target: int, count: int) -> None:
        """Slot `target` takes over the first `count` positions of `source`."""

    def decode_call(self, rows: int) -> DecodeCall | None:
        """The memory of a step of one row a slot; None where steps go through `run` only."""

    def close(self) -> None: ...


class Pump(Protocol):
    """The loop between the data port and the next link: receive, decode, step, encode, send."""

    def run(self, stop: Event) -> None: ...

    def counters(self) -> LinkCounters: ...

    def records(self) -> tuple[StepRecord, ...]: ...


class Next(Protocol):
    """The open link to the next of the chain."""

    @property
    def address(self) -> str: ...

    def close(self) -> None: ...


class Relay(Protocol):
    """The next worker's ExecutePipeline."""

    def execute(self, steps: Any, timeout_s: float) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    open_session: Callable[[Path, ShardSpec], Session]
    connect: Callable[[Wiring], Next]  # raises TransportError
    open_pump: Callable[[Session, Any, Wiring, EpochCodecs, ShardSpec], Pump]
    measure_link: Callable[[Wiring, Sequence[str], Sequence[int], int, str], LinkSpeed]  # codecs, rows, width, dtype
    open_relay: Callable[[str], Relay]  # control address -> the next worker
    spawn: Callable[[Callable[[], None]], None]  # run it in a supervised thread
