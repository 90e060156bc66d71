"""A session's side on a GPU: buffers at fixed addresses, copies on the shard's stream, and captured graphs.

Small inputs and results of a call stand in pinned memory and are copied as one block. Hidden states never leave the
GPU: they are copied between the rows of a step and two buffers that all calls share.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import WorkerError
from hyperlane.worker.gpu import DeviceRows, Gpu, RowRing, Stamps, segments
from hyperlane.worker.signature import Value

RESULTS = 4  # steps whose hidden states may wait to be encoded
STAMPED = 16384  # steps of which it is known when the GPU computed them
ALIGNMENT = 64
Shapes = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
Piece = tuple[int, int, int]  # a row of the step, a row of the call, how many


class Mirror:
    """Arrays in pinned memory, and room for the same on the GPU."""

    def __init__(self, gpu: Gpu, shapes: Shapes) -> None:
        sizes = {name: int(np.prod(shape)) * np.dtype(kind).itemsize for name, (shape, kind) in shapes.items()}
        starts = [0, *itertools.accumulate(size + -size % ALIGNMENT for size in sizes.values())]
        self._starts = dict(zip(sizes, starts, strict=False))
        self._bytes = starts[-1]
        self._pinned, self._memory = gpu.pinned(self._bytes), gpu.memory(self._bytes)
        whole = np.frombuffer(memoryview(self._pinned), np.uint8)
        self.arrays: dict[str, NDArray[Any]] = {
            name: whole[self._starts[name] :][: sizes[name]].view(kind).reshape(shape)
            for name, (shape, kind) in shapes.items()
        }

    def address(self, name: str) -> int:
        """Of an array on the GPU."""
        return int(self._memory.address) + self._starts[name]

    def upload(self, stream: Any) -> None:
        if self._bytes:
            stream.copy(self._memory.address, self._pinned.address, self._bytes)

    def download(self, stream: Any) -> None:
        if self._bytes:
            stream.copy(self._pinned.address, self._memory.address, self._bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCall:
    """What a prepared call has on the GPU."""

    inputs: Mirror
    outputs: Mirror
    uploaded: Any  # the inputs' event: from then on they may be written again
    options: Any  # of its runs

    def await_upload(self) -> None:
        """Until the inputs of its last run have left pinned memory."""
        self.uploaded.synchronize()


class DeviceSide:
    """One session's memory and stream on a GPU."""

    def __init__(self, gpu: Gpu, new_options: Callable[[], Any], *, graphs: bool = True) -> None:
        """`new_options` makes onnxruntime's RunOptions."""
        self.gpu, self._new_options, self._graphs = gpu, new_options, graphs
        self._numbers = itertools.count(1)
        self._reserved, self._in_bytes, self._out_bytes = 0, 0, 0
        self._memory: tuple[Any, Any] = (None, None)
        self._in_type: np.dtype[Any] = np.dtype(np.float16)
        self._rows: DeviceRows | None = None
        self._result: DeviceRows | None = None
        self._staged: RowRing | None = None
        self._stamps = Stamps(gpu, STAMPED)
        self._step, self._begun = 0, False
        self._results: RowRing | None = None

    def load(self, open_session: Callable[[dict[str, str]], Any]) -> Any:
        """A session on this stream; `open_session` takes the CUDA provider's options.

        With CUDA graphs where onnxruntime can capture this one: a decode step is then one launch.
        """
        options = {
            "device_id": str(self.gpu.index),
            "user_compute_stream": str(self.gpu.stream.address),
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "0",
        }
        os.environ.setdefault("ORT_ENABLE_XQA", "0")  # its other kernels for decoding are faster (docs/gpu.md)
        self.gpu.use()
        if self._graphs:
            try:
                return open_session({**options, "enable_cuda_graph": "1"})
            except Exception as error:  # onnxruntime's own types
                if "graph" not in str(error).lower():
                    raise
                self._graphs = False
        return open_session(options)

    def describe(
        self, hidden_in: "tuple[int, np.dtype[Any]] | None", hidden_out: "tuple[int, np.dtype[Any]] | None"
    ) -> None:
        """Width and type of the hidden states at each end; None where there are none."""
        if hidden_in is not None:
            self._in_type, self._in_bytes = hidden_in[1], hidden_in[0] * hidden_in[1].itemsize
        if hidden_out is not None:
            self._out_bytes = hidden_out[0] * hidden_out[1].itemsize

    @property
    def hidden_in(self) -> int:
        """Where calls read hidden states."""
        return int(self._memory[0].address)

    @property
    def hidden_out(self) -> int:
        """Where calls write hidden states."""
        return int(self._memory[1].address)

    def zeros(self, count: int) -> Any:
        """Device memory of zeros."""
        self.gpu.use()
        memory = self.gpu.memory(count)
        self.gpu.stream.zero(memory.address, count)
        return memory

    def copy_slot(self, address: int, slot_bytes: int, shape: tuple[int, int, int], fork: tuple[int, int, int]) -> None:
        """Copy the first positions of each head of a slot; `fork` is source, target, count."""
        heads, positions, _ = shape
        source, target, count = fork
        head_bytes = slot_bytes // heads
        self.gpu.use()
        at, to = (address + slot * slot_bytes for slot in (source, target))
        self.gpu.stream.copy_rows(to, at, head_bytes, count * (head_bytes // positions), heads)

    def reserve(self, rows: int) -> bool:
        """Room for so many rows at both ends; True where that moved them, which unbinds all calls."""
        if rows <= self._reserved:
            return False
        self.gpu.stream.synchronize()
        self._reserved = 1 << (rows - 1).bit_length()
        # Idle slots compute what lies there: no NaN should.
        self._memory = (self.zeros(self._reserved * self._in_bytes), self.zeros(self._reserved * self._out_bytes))
        return True

    def new_call(self, inputs: Shapes, outputs: Shapes, *, captured: bool) -> DeviceCall:
        """captured: its first run is captured into a CUDA graph, which later runs launch."""
        options = self._new_options()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self._graphs:
            options.add_run_config_entry("gpu_graph_id", str(next(self._numbers)) if captured else "-1")
        return DeviceCall(
            inputs=Mirror(self.gpu, inputs),
            outputs=Mirror(self.gpu, outputs),
            uploaded=self.gpu.event(),
            options=options,
        )

    # --- a step ---------------------------------------------------------------------------------------------

    def begin(self, rows: NDArray[Any] | DeviceRows, out_width: int, out_type: "np.dtype[Any] | None") -> None:
        """Of rows [R, ..]; `out_type` is None where no hidden states come out."""
        self.gpu.use()
        self._rows = self._result = None
        self._step, self._begun = self._step + 1, False
        if self._in_bytes:
            self._rows = rows if isinstance(rows, DeviceRows) else self._sent(rows)
        if out_type is not None:
            self._results = self._results or RowRing(self.gpu, RESULTS, self._out_bytes)
            self._result = self._results.take(len(rows), out_width, out_type)
            self.gpu.stream.wait(self._result.read)

    def upload(self, call: DeviceCall, pieces: Sequence[Piece]) -> None:
        """Inputs to where the call reads them."""
        stream = self.gpu.stream
        if not self._begun:
            self._begin_compute()
        call.inputs.upload(stream)
        call.uploaded.record(stream)
        if self._rows is not None:
            for at, to, count in segments(pieces):
                source, target = self._rows.address + at * self._in_bytes, self.hidden_in + to * self._in_bytes
                stream.copy(target, source, count * self._in_bytes)
            self._rows.read.record(stream)

    def download(self, call: DeviceCall, pieces: Sequence[Piece]) -> None:
        """Results from where the call wrote them."""
        stream = self.gpu.stream
        call.outputs.download(stream)
        if self._result is not None:
            for to, at, count in segments(pieces):
                target, source = self._result.address + to * self._out_bytes, self.hidden_out + at * self._out_bytes
                stream.copy(target, source, count * self._out_bytes)
        self._stamps.mark(self._step, ends=True)

    def end(self) -> DeviceRows:
        """The step's hidden states."""
        assert self._result is not None
        self._result.there.record(self.gpu.stream)
        return self._result

    def when(self) -> Callable[[], tuple[int, int]]:
        """What tells when the GPU began and ended the step, once it has."""
        return partial(self._stamps.span_ns, self._step)

    def _begin_compute(self) -> None:
        """As late as can be: rows that still come may hold up the host here."""
        self._begun = True
        if self._rows is not None:
            if self._rows.arrive is not None:
                self._rows.arrive()
            self.gpu.stream.wait(self._rows.there)
        self._stamps.mark(self._step, ends=False)

    def _sent(self, rows: NDArray[Any]) -> DeviceRows:
        """Rows that are on the host."""
        values = np.ascontiguousarray(rows, self._in_type)
        self._staged = self._staged or RowRing(self.gpu, RESULTS, self._in_bytes)
        sent = self._staged.take(len(values), values.shape[1], values.dtype)
        self.gpu.stream.wait(sent.read)
        self.gpu.stream.copy(sent.address, values.ctypes.data, values.nbytes)
        sent.there.record(self.gpu.stream)
        self.gpu.stream.synchronize()  # the array may be gone after this step
        return sent


def refuse_float32(caches: Sequence[Value]) -> None:
    """WorkerError for a shard with fused FP32 attention, which onnxruntime has no CUDA kernels for."""
    if any(cache.type is not np.float16 for cache in caches):
        raise WorkerError("a GPU takes fused attention in FP16 only; deploy again, or set model.dtype=float16")
