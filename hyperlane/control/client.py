"""The coordinator's side of the control plane: one `ControlClient` a worker."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from hyperlane.artifacts import Blob
from hyperlane.control import messages, steps, transfer
from hyperlane.control import worker_pb2 as pb
from hyperlane.control.call import Call
from hyperlane.control.channel import SLOW_DISK_BYTES_PER_S, explain, open_channel
from hyperlane.control.types import (
    ComputeSpeed,
    LinkSpeed,
    Loaded,
    PathSpeed,
    Probe,
    ShardSpec,
    Step,
    Wired,
    Wiring,
    WorkerStats,
)
from hyperlane.control.worker_pb2_grpc import WorkerStub
from hyperlane.errors import HyperlaneError
from hyperlane.timeline.record import Records

T = TypeVar("T")

CALL_TIMEOUT_S = 10.0


class ControlClient:
    """Calls to the worker at `address` (host:port); `name` only makes errors readable.

    A method returns a `Call`: `await` it in trio, or take its `result()` in a thread. Every call has a
    deadline; one that is safe to repeat is repeated with backoff while the worker is unavailable. Errors:
    WorkerError, StoreError (disk, damaged files), TransportError (link to the next worker), ClusterError
    (another version).
    """

    def __init__(self, address: str, name: str = "", *, retries: bool = True) -> None:
        self.address = address
        self._who = f"worker {name} at {address}" if name else f"the worker at {address}"
        self._channel = open_channel(address, retries=retries)
        self._stub = WorkerStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the calls in flight and the connection."""
        self._channel.close()

    def stats(self, timeout_s: float = CALL_TIMEOUT_S) -> Call[WorkerStats]:
        """What the worker is, has and holds."""
        return self._call("GetStats", pb.GetStatsRequest(), timeout_s, messages.stats_from_message)

    def held_bytes(self, blobs: Sequence[Blob], timeout_s: float | None = None) -> Call[list[int]]:
        """How many leading bytes of each file the worker holds, checked by digest where it holds all."""
        if timeout_s is None:
            timeout_s = CALL_TIMEOUT_S + sum(blob.bytes for blob in blobs) / SLOW_DISK_BYTES_PER_S
        return self._call(
            "HasLayers", messages.files_to_message(blobs), timeout_s, lambda reply: list(reply.held_bytes)
        )

    def wire(self, wiring: Wiring, timeout_s: float = 2 * CALL_TIMEOUT_S) -> Call[Wired]:
        """Connect the worker to the next of the chain."""
        return self._call("SetNextWorker", messages.wiring_to_message(wiring), timeout_s, messages.wired_from_message)

    def measure_link(
        self, codecs: Sequence[str], rows: Sequence[int], width: int, timeout_s: float = 60.0
    ) -> Call[LinkSpeed]:
        """The speed of a wired worker's link to the next one, and of its codecs on frames of `rows` of `width`."""
        request = pb.MeasureLinkRequest(codecs=codecs, rows=rows, width=width)
        return self._call("MeasureLink", request, timeout_s, messages.speed_from_message)

    def records(self, steps: int, timeout_s: float = CALL_TIMEOUT_S) -> Call[Records]:
        """The worker's clock, and when the stages of its latest steps began and ended, at most so many."""
        return self._call("GetRecords", pb.GetRecordsRequest(steps=steps), timeout_s, messages.records_from_message)

    def measure_compute(self, probe: Probe, timeout_s: float = 120.0) -> Call[ComputeSpeed]:
        """How long the probe's steps take on the worker, and what it knows of its machine."""
        return self._call("MeasureCompute", messages.probe_to_message(probe), timeout_s, messages.compute_from_message)

    def measure_path(
        self, control_address: str, data_addresses: Sequence[str], timeout_s: float = 60.0
    ) -> Call[PathSpeed]:
        """How fast the path from the worker to another one is."""
        request = pb.MeasurePathRequest(control_address=control_address, data_addresses=data_addresses)
        return self._call("MeasurePath", request, timeout_s, messages.path_from_message)

    def open_sink(self, timeout_s: float = CALL_TIMEOUT_S) -> Call[int]:
        """A port of the worker that takes one connection and answers what `worker.path` sends."""
        return self._call("OpenSink", pb.OpenSinkRequest(), timeout_s, lambda reply: int(reply.port))

    def unload(self, timeout_s: float = CALL_TIMEOUT_S) -> Call[None]:
        """Drop shard and wiring; the files stay in the worker's store."""
        return self._call("Unload", pb.UnloadRequest(), timeout_s, lambda reply: None)

    async def load_shard(
        self,
        spec: ShardSpec,
        path_of: Callable[[str], Path],
        *,
        progress: transfer.Progress = lambda sent_bytes, total_bytes: None,
        load_timeout_s: float = 60.0,
        files_only: bool = False,
    ) -> Loaded:
        """Send what the worker lacks, from where an interrupted transfer stopped, and load the shard.

        With `files_only` nothing is loaded, and the shard held goes on.

        `path_of(sha256)` says where a file lies here; `progress(sent_bytes, total_bytes)` runs in a thread.
        A broken link or a damaged file is tried again a few times.
        """
        return await transfer.load_shard(self, spec, path_of, progress, load_timeout_s, files_only=files_only)

    def send_files(self, requests: Iterator[Any], timeout_s: float) -> Call[Any]:
        """One LoadShard stream as `transfer` makes it."""
        return self._call("LoadShard", requests, timeout_s, lambda reply: reply)

    def execute(self, arriving: Iterable[Step], timeout_s: float) -> Iterator[Step]:
        """Run steps through the chain that starts at this worker; blocks, and yields the replies in order."""
        return self._stream("ExecutePipeline", arriving, timeout_s, steps.step_from_message)

    def compare(self, pairs: Iterable[Step], timeout_s: float) -> Iterator[NDArray[np.float64]]:
        """For each two steps of the last shard, exact and coded: the KL of each output row, in nats."""
        return self._stream("Compare", pairs, timeout_s, lambda reply: np.array(reply.kl))

    def _stream(self, method: str, arriving: Iterable[Step], timeout_s: float, read: Callable[[Any], T]) -> Iterator[T]:
        call = getattr(self._stub, method)((steps.step_to_message(step) for step in arriving), timeout=timeout_s)
        try:
            for reply in call:
                yield read(reply)
        except grpc.RpcError as error:
            raise self._explain(method, timeout_s, error) from error
        finally:
            call.cancel()

    def _call(self, method: str, request: Any, timeout_s: float, read: Callable[[Any], T]) -> Call[T]:
        future = getattr(self._stub, method).future(request, timeout=timeout_s)
        return Call(future, read, functools.partial(self._explain, method, timeout_s))

    def _explain(self, method: str, timeout_s: float, error: Exception) -> HyperlaneError:
        return explain(error, self._who, method, timeout_s)
