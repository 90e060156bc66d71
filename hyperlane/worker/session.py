"""One shard on ONNX Runtime: a graph, and the keys and values of all slots, updated in place.

The only door to onnxruntime. With our own attention a step is one call (ragged.py). Else its runs become calls of two
shapes, which every build of ONNX Runtime computes alike: decode (a range of slots, one token each) and prefill (one
slot, several tokens).
"""

import importlib.metadata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import WorkerError, one_line
from hyperlane.model.attention import POSITIONS
from hyperlane.transport.frame import Run
from hyperlane.worker.device_call import DeviceCall, DeviceSide, Shapes, refuse_float32
from hyperlane.worker.gpu import DeviceRows, Gpu
from hyperlane.worker.memory import (
    cache_out_of_memory,
    is_out_of_memory,
    step_out_of_memory,
    weights_out_of_memory,
)
from hyperlane.worker.operators import operators_library
from hyperlane.worker.ragged import Bound, RaggedCalls

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
_RESULTS = {
    "hidden_out": "hidden_RD",
    "logits": "logits_NV",
    "candidate_ids": "ids_NK",
    "candidate_logits": "logits_NK",
    "logsumexp": "logsumexp_N",
}
_CALLS = 64  # how many shapes of call stay prepared
_GAP = 3  # this many idle slots between two decoding ones cost about as much as another call


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step of a shard gives: hidden states, or what the outputs asked for in the last shard."""

    hidden_RD: NDArray[Any] | DeviceRows | None = None
    ids_NK: NDArray[np.int64] | None = None
    logits_NK: NDArray[np.float32] | None = None  # of the candidates `ids_NK`, the largest first
    logsumexp_N: NDArray[np.float32] | None = None  # over the whole vocabulary
    logits_NV: NDArray[np.float32] | None = None
    gpu_ns: Callable[[], tuple[int, int]] | None = None  # when a GPU began and ended it, for when it is over


class Session:
    """A loaded shard with room for `slots` sequences of `context` tokens. For one thread at a time."""

    def __init__(
        self,
        graph_path: Path,
        *,
        slots: int,
        context: int,
        threads: int,
        device: str = "cpu",
        spinning: bool = False,
        free_bytes: int | None = None,
        graphs: bool = True,
    ) -> None:
        """Load the graph and the weight files beside it; WorkerError if that fails.

        OutOfMemoryError where the weights do not fit, or keys and values would take more than `free_bytes`.

        device: "cpu" or "cuda:N"; graphs: on a GPU, capture decode steps into CUDA graphs.
        spinning: idle threads wait busily; faster alone, slower with neighbours.
        """
        self._runtime = _onnxruntime()
        self._context, self._slots = context, slots
        kind, _, index = device.partition(":")
        self._device: DeviceSide | None = None
        try:
            if kind == "cuda":
                if "CUDAExecutionProvider" not in self._runtime.get_available_providers():
                    raise ValueError("this onnxruntime has no CUDA; install hyperlane[gpu], or use device=cpu")
                self._device = DeviceSide(Gpu(int(index or 0)), self._runtime.RunOptions, graphs=graphs)
            self._session = self._load(graph_path, threads, spinning)
        except WorkerError:
            raise
        except Exception as error:  # onnxruntime's own types, one a kind of failure
            if is_out_of_memory(error):
                raise weights_out_of_memory(_bytes_beside(graph_path), free_bytes) from error
            raise WorkerError(f"cannot load the shard {graph_path.name}: {one_line(error)[:300]}") from error
        inputs = {value.name: value for value in self._session.get_inputs()}
        self.is_first, self.is_last = "input_ids" in inputs, "output_rows" in inputs
        self._is_fused = "seqlens_k" in inputs  # attention as one operator, which wants lengths
        self._rows_input = inputs["input_ids" if self.is_first else "hidden_in"]
        self._outputs = {value.name: value for value in self._session.get_outputs()}
        if self._device is not None:
            refuse_float32({name: value.type for name, value in inputs.items()})
            self._device.describe(
                None if self.is_first else self._hidden(self._rows_input),
                None if self.is_last else self._hidden(self._outputs["hidden_out"]),
            )
        # Whole tiles of our own cache; or one position more for the idle rows of a batch.
        self._positions = -(-context // POSITIONS) * POSITIONS if "row_slots" in inputs else context + 1
        self._caches = self._new_caches(
            [value for name, value in inputs.items() if name.startswith("past_")], free_bytes
        )
        self._calls: OrderedDict[tuple[int, ...], _Call] = OrderedDict()
        self._ragged = self._ragged_calls() if "row_slots" in inputs else None
        self._live = np.zeros(slots, np.int64)  # how many positions of each slot hold keys and values

    def run(self, runs: Sequence[Run], rows: NDArray[Any] | DeviceRows, want_logits: bool = False) -> StepResult:
        """Compute one step.

        rows: token ids int64 [R] in the first shard, else hidden states [R, D], in the order of `runs`.
        Outputs come in that order too; on a GPU hidden states stay there, and may still be under way.
        WorkerError if a run does not fit its slot, or ONNX Runtime fails.
        """
        self._check(runs, rows)
        try:
            return self._run(runs, rows, want_logits)
        except Exception as error:  # onnxruntime's own types, one a kind of failure
            if is_out_of_memory(error):
                raise step_out_of_memory(len(rows), error) from error
            raise WorkerError(f"a step of {len(rows)} rows failed: {one_line(error)[:300]}") from error

    def _run(self, runs: Sequence[Run], rows: NDArray[Any] | DeviceRows, want_logits: bool) -> StepResult:
        if self._device is not None:
            result = self._run_on_device(self._device, runs, rows, want_logits)
        else:
            assert not isinstance(rows, DeviceRows)
            result = self._run_on_host(runs, rows, want_logits)
        for run in runs:
            self._live[run.slot] = run.position + run.count
        return result

    def _run_on_host(self, runs: Sequence[Run], rows: NDArray[Any], want_logits: bool) -> StepResult:
        if self._ragged is not None:
            wanted = {name: self._outputs[name] for name in self._wanted(want_logits)}
            kinds = {name: (_TYPES[v.type], v.shape[-1] if len(v.shape) > 1 else None) for name, v in wanted.items()}
            found = self._ragged.run(runs, rows, kinds)
            arrays: dict[str, Any] = {_RESULTS[name]: array for name, array in found.items()}
            return StepResult(**arrays)
        result = self._new_result(len(rows), sum(run.outputs for run in runs), want_logits)
        row_starts = [0, *accumulate(run.count for run in runs)]
        output_starts = [0, *accumulate(run.outputs for run in runs)]
        for batch in _batches(runs):
            call = self._prepared(batch, sum(runs[i].outputs for i in batch.members), want_logits)
            self._fill(call, batch, runs, rows, row_starts)
            self._session.run_with_iobinding(call.binding)
            self._collect(call, batch, runs, result, row_starts, output_starts)
        return result

    def _run_on_device(
        self, device: DeviceSide, runs: Sequence[Run], rows: NDArray[Any] | DeviceRows, want_logits: bool
    ) -> StepResult:
        """As on the host, but hidden states are copied from and to where the calls have theirs on the GPU."""
        outputs = sum(run.outputs for run in runs)
        result = self._new_result(0, outputs, want_logits)
        row_starts = [0, *accumulate(run.count for run in runs)]
        output_starts = [0, *accumulate(run.outputs for run in runs)]
        width, kind = (0, None) if self.is_last else self._hidden(self._outputs["hidden_out"])
        device.begin(rows, width, kind)
        for batch in _batches(runs):
            if device.reserve(batch.slots * batch.length):  # the calls are bound to what was too small
                self._calls.clear()
            call = self._prepared(batch, sum(runs[i].outputs for i in batch.members), want_logits)
            assert call.device is not None
            call.device.await_upload()
            self._fill(call, batch, runs, rows, row_starts)
            pieces = [
                (row_starts[i], (runs[i].slot - batch.first) * batch.length, runs[i].count) for i in batch.members
            ]
            device.upload(call.device, pieces)
            self._session.run_with_iobinding(call.binding, call.device.options)
            device.download(call.device, pieces)
            gpu_ns = device.computed()
            if self.is_last:
                device.gpu.stream.synchronize()
                self._collect(call, batch, runs, result, row_starts, output_starts)
        return replace(result, gpu_ns=gpu_ns) if self.is_last else StepResult(hidden_RD=device.end(), gpu_ns=gpu_ns)

    def wait(self) -> None:
        """Until everything that was queued is done."""
        if self._device is not None:
            self._device.gpu.stream.synchronize()

    def assume(self, past: int) -> None:
        """Take every slot to hold `past` positions, whatever they are: for timing."""
        self._live[:] = past

    def copy(self, source: int, target: int, count: int) -> None:
        """Slot `target` takes over the first `count` positions of `source`; WorkerError where it does not hold them."""
        if max(source, target) >= self._slots or source == target:
            raise WorkerError(f"slot {target} cannot copy slot {source} of {self._slots}")
        if not 0 < count <= self._live[source]:
            raise WorkerError(f"slot {source} holds {self._live[source]} positions, a copy wants {count}")
        for cache in self._caches:
            if self._device is None:
                whole = -(-count // POSITIONS) * POSITIONS  # a tile holds its positions side by side
                cache.memory[target, :, :whole] = cache.memory[source, :, :whole]
            else:
                self._device.copy_slot(cache.address, cache.slot_bytes, cache.shape, (source, target, count))
        self._live[target] = count

    def close(self) -> None:
        """Free the weights and the cache."""
        self.wait()
        self._calls.clear()
        self._ragged = None
        self._caches.clear()
        self._session = None
        self._device = None

    # --- a step ---------------------------------------------------------------------------------------------

    def _check(self, runs: Sequence[Run], rows: NDArray[Any] | DeviceRows) -> None:
        """Nothing may be written outside a slot, and no position may be left out."""
        if len(rows) != sum(run.count for run in runs) or len({run.slot for run in runs}) != len(runs):
            raise WorkerError(f"a step of {len(rows)} rows does not match its {len(runs)} runs")
        expected = (len(rows), *self._rows_input.shape[2:])
        if rows.shape != expected:
            raise WorkerError(f"rows of shape {rows.shape} where {expected} belongs")
        for run in runs:
            if run.slot >= self._slots or run.count < 1 or run.outputs > run.count:
                raise WorkerError(f"{run} is no run of a worker with {self._slots} slots")
            if run.position + run.count > self._context:
                stop = run.position + run.count
                raise WorkerError(f"position {stop - 1} is beyond the context of {self._context} tokens")
            if run.position > self._live[run.slot]:
                live = self._live[run.slot]
                raise WorkerError(f"slot {run.slot} holds {live} positions, the step starts at {run.position}")

    def _fill(
        self,
        call: "_Call",
        batch: "_Batch",
        runs: Sequence[Run],
        rows: NDArray[Any] | DeviceRows,
        row_starts: Sequence[int],
    ) -> None:
        """Write a call's inputs, but hidden states on a GPU.

        An idle slot computes whatever it held, just behind its live keys.
        """
        call.positions_BS[:, 0] = self._live[batch.first : batch.first + batch.slots]
        wanted = 0
        for i in batch.members:
            run, row = runs[i], runs[i].slot - batch.first
            if call.rows_BS is not None:
                assert not isinstance(rows, DeviceRows)
                call.rows_BS[row] = rows[row_starts[i] : row_starts[i + 1]]
            stop = row * batch.length + run.count
            if run.count == 1:  # most steps: without arrays for single numbers
                call.positions_BS[row, 0] = run.position
                call.output_rows_N[wanted : wanted + run.outputs] = row
            else:
                call.positions_BS[row] = np.arange(run.position, run.position + run.count)
                call.output_rows_N[wanted : wanted + run.outputs] = np.arange(stop - run.outputs, stop)
            wanted += run.outputs
        call.seqlens_k_B[:] = call.positions_BS[:, -1]
        if call.device is None or batch.length > 1:
            call.total_length[...] = call.seqlens_k_B.max() + 1

    def _collect(
        self,
        call: "_Call",
        batch: "_Batch",
        runs: Sequence[Run],
        result: StepResult,
        row_starts: Sequence[int],
        output_starts: Sequence[int],
    ) -> None:
        """Copy a call's outputs to where the step's order puts them."""
        wanted = 0
        for i in batch.members:
            run, row = runs[i], runs[i].slot - batch.first
            for name, values in call.outputs.items():
                if name == "hidden_out":
                    assert isinstance(result.hidden_RD, np.ndarray)
                    result.hidden_RD[row_starts[i] : row_starts[i + 1]] = values[row]
                else:
                    target = getattr(result, _RESULTS[name])
                    target[output_starts[i] : output_starts[i + 1]] = values[wanted : wanted + run.outputs]
            wanted += run.outputs

    def _new_result(self, rows: int, outputs: int, want_logits: bool) -> StepResult:
        fields: dict[str, Any] = {}
        for name in self._wanted(want_logits):
            value = self._outputs[name]
            shape = (rows, value.shape[-1]) if name == "hidden_out" else (outputs, *value.shape[1:])
            fields[_RESULTS[name]] = np.empty(shape, _TYPES[value.type])
        return StepResult(**fields)

    def _wanted(self, want_logits: bool) -> tuple[str, ...]:
        if not self.is_last:
            return ("hidden_out",)
        return ("logits",) if want_logits else ("candidate_ids", "candidate_logits", "logsumexp")

    def _ragged_calls(self) -> RaggedCalls:
        value = self._rows_input
        width = value.shape[-1] if len(value.shape) > 2 else None
        caches = [
            Bound(name=cache.name, type=cache.type, shape=(self._slots, *cache.shape), address=cache.address)
            for cache in self._caches
        ]
        return RaggedCalls(self._session, (value.name, _TYPES[value.type], width), caches, is_last=self.is_last)

    # --- calls of ONNX Runtime ------------------------------------------------------------------------------

    def _prepared(self, batch: "_Batch", outputs: int, want_logits: bool) -> "_Call":
        """The call for a batch of this shape on these slots, made once and kept while it is in use."""
        key = (batch.first, batch.slots, batch.length, outputs, want_logits)
        call = self._calls.pop(key, None) or self._new_call(batch, outputs, want_logits)
        self._calls[key] = call
        if len(self._calls) > _CALLS:
            self._calls.popitem(last=False)
        return call

    def _new_call(self, batch: "_Batch", outputs: int, want_logits: bool) -> "_Call":
        if self._device is not None:
            return self._new_device_call(self._device, batch, outputs, want_logits)
        B, S, binding = batch.slots, batch.length, self._session.io_binding()
        rows_BS = np.zeros((B, S, *self._rows_input.shape[2:]), _TYPES[self._rows_input.type])
        call = _Call(
            binding=binding,
            rows_BS=rows_BS,
            positions_BS=np.zeros((B, S), np.int64),
            seqlens_k_B=np.zeros(B, np.int32),
            total_length=np.zeros((), np.int32),
            output_rows_N=np.zeros(outputs, np.int64),
            outputs={},
        )
        inputs = {self._rows_input.name: rows_BS, "position_ids": call.positions_BS}
        if self._is_fused:
            inputs |= {"seqlens_k": call.seqlens_k_B, "total_sequence_length": call.total_length}
        if self.is_last:
            inputs["output_rows"] = call.output_rows_N
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._bind_caches(binding, ("cpu", 0), batch)
        for name in self._wanted(want_logits):
            value = self._outputs[name]
            shape = (B, S, value.shape[-1]) if name == "hidden_out" else (outputs, *value.shape[1:])
            array = call.outputs[name] = np.empty(shape, _TYPES[value.type])
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return call

    def _new_device_call(self, device: DeviceSide, batch: "_Batch", outputs: int, want_logits: bool) -> "_Call":
        B, S, binding = batch.slots, batch.length, self._session.io_binding()
        shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {"position_ids": ((B, S), np.int64)}
        if self._is_fused:
            shapes["seqlens_k"] = ((B,), np.int32)
        if self.is_first:
            shapes["input_ids"] = ((B, S), np.int64)
        if self.is_last:
            shapes["output_rows"] = ((outputs,), np.int64)
        wanted = [self._outputs[name] for name in self._wanted(want_logits) if name != "hidden_out"]
        results: Shapes = {value.name: ((outputs, *value.shape[1:]), _TYPES[value.type]) for value in wanted}
        side = device.new_call(shapes, results, captured=S == 1)
        place = ("cuda", device.gpu.index)
        for name, (shape, kind) in shapes.items():
            binding.bind_input(name, *place, kind, shape, side.inputs.address(name))
        for name, (shape, kind) in results.items():
            binding.bind_output(name, *place, kind, shape, side.outputs.address(name))
        if not self.is_first:
            width, hidden = self._hidden(self._rows_input)
            binding.bind_input("hidden_in", *place, hidden.type, (B, S, width), device.hidden_in)
        if not self.is_last:
            width, hidden = self._hidden(self._outputs["hidden_out"])
            binding.bind_output("hidden_out", *place, hidden.type, (B, S, width), device.hidden_out)
        # What a step's longest sequence holds; a captured graph goes on using it, so that it is the most.
        total_length = np.full((), self._context + 1, np.int32)
        if self._is_fused:
            binding.bind_input("total_sequence_length", "cpu", 0, np.int32, (), total_length.ctypes.data)
        self._bind_caches(binding, place, batch)
        arrays = side.inputs.arrays
        return _Call(
            binding=binding,
            rows_BS=arrays.get("input_ids"),
            positions_BS=arrays["position_ids"],
            seqlens_k_B=arrays.get("seqlens_k", np.empty(B, np.int32)),
            total_length=total_length,
            output_rows_N=arrays.get("output_rows", np.empty(outputs, np.int64)),
            outputs=side.outputs.arrays,
            device=side,
        )

    def _bind_caches(self, binding: Any, place: tuple[str, int], batch: "_Batch") -> None:
        for cache in self._caches:
            address = cache.address + batch.first * cache.slot_bytes
            memory = (*place, cache.type, (batch.slots, *cache.shape), address)
            binding.bind_input(cache.name, *memory)
            binding.bind_output(cache.name.replace("past_", "present_"), *memory)

    def _hidden(self, value: Any) -> tuple[int, "np.dtype[Any]"]:
        """Width and type of the hidden states that an input or output of the graph takes."""
        return value.shape[-1], np.dtype(_TYPES[value.type])

    def _new_caches(self, values: Sequence[Any], free_bytes: int | None) -> list["_Cache"]:
        """What will be needed is compared with what is free first: the kernel promises more memory than it has."""
        positions = self._slots * self._positions
        needed = sum(positions * v.shape[1] * v.shape[3] * np.dtype(_TYPES[v.type]).itemsize for v in values)
        if free_bytes is not None and needed > free_bytes:
            raise cache_out_of_memory(needed, self._slots, self._context, free_bytes)
        try:
            return [self._new_cache(value) for value in values]
        except Exception as error:  # NumPy's or onnxruntime's
            if is_out_of_memory(error):
                raise cache_out_of_memory(needed, self._slots, self._context, free_bytes) from error
            raise

    def _new_cache(self, value: Any) -> "_Cache":
        """Keys or values of a layer: [slots, heads, positions, head_dim, or bytes a position]."""
        shape, kind = (value.shape[1], self._positions, value.shape[3]), _TYPES[value.type]
        slot_bytes = int(np.prod(shape)) * np.dtype(kind).itemsize
        held: Any
        if self._device is not None:
            held = self._device.zeros(self._slots * slot_bytes)
            address = held.address
        else:
            held = np.empty((self._slots, *shape), kind)
            held.fill(0)  # written now: a page that a step is the first to touch costs it more than the step itself
            address = held.ctypes.data
        return _Cache(name=value.name, type=kind, shape=shape, address=address, slot_bytes=slot_bytes, memory=held)

    def _load(self, graph_path: Path, threads: int, spinning: bool) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        library = operators_library()
        if library is not None:
            options.register_custom_ops_library(library)
        if self._device is None:
            return self._runtime.InferenceSession(graph_path, options, providers=["CPUExecutionProvider"])
        return self._device.load(
            lambda cuda: self._runtime.InferenceSession(
                graph_path, options, providers=[("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Runs that one call computes: `slots` slots from `first`, `length` tokens each; the others are idle."""

    first: int
    slots: int
    length: int
    members: tuple[int, ...]  # indices of the runs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    name: str  # of the graph's input
    type: type[np.generic]
    shape: tuple[int, int, int]  # of one slot
    address: int  # of slot 0
    slot_bytes: int
    memory: Any  # keeps the address valid


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """Inputs and outputs of a call in memory of their own, bound once; with `device` pinned, and copied."""

    binding: Any
    rows_BS: NDArray[Any] | None  # [B, S] ids or [B, S, D] hidden states; None: those are on the GPU
    positions_BS: NDArray[np.int64]
    seqlens_k_B: NDArray[np.int32]
    total_length: NDArray[np.int32]
    output_rows_N: NDArray[np.int64]
    outputs: dict[str, NDArray[Any]]
    device: DeviceCall | None = None


def _batches(runs: Sequence[Run]) -> list[_Batch]:
    """A prefill a run of several tokens; runs of one token together where their slots are near each other."""
    batches = [
        _Batch(first=run.slot, slots=1, length=run.count, members=(i,)) for i, run in enumerate(runs) if run.count > 1
    ]
    group: list[int] = []
    for i in sorted((i for i, run in enumerate(runs) if run.count == 1), key=lambda i: runs[i].slot):
        if group and runs[i].slot - runs[group[-1]].slot > _GAP:
            batches.append(_decode_batch(group, runs))
            group = []
        group.append(i)
    if group:
        batches.append(_decode_batch(group, runs))
    return batches


def _decode_batch(group: list[int], runs: Sequence[Run]) -> _Batch:
    first, last = runs[group[0]].slot, runs[group[-1]].slot
    return _Batch(first=first, slots=last - first + 1, length=1, members=tuple(group))


def _bytes_beside(graph_path: Path) -> int:
    """Of the graph and the weight files that it names, as far as they are found by name."""
    content = graph_path.read_bytes()
    files = (path for path in graph_path.parent.iterdir() if path.name.encode() in content)
    return len(content) + sum(path.stat().st_size for path in files)


def _onnxruntime() -> Any:
    """The module; WorkerError if it is missing, or if both packages that write it are there."""
    installed = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)
            installed.append(name)
    if len(installed) == 2:
        raise WorkerError(
            "onnxruntime and onnxruntime-gpu write the same files; pip uninstall both "
            "and install hyperlane[cpu] or hyperlane[gpu]"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise WorkerError("onnxruntime is missing; install hyperlane[cpu] or hyperlane[gpu]") from error
    return onnxruntime
