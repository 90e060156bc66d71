"""One shard on ONNX Runtime: a graph, and the keys and values of all slots, updated in place.

The only door to onnxruntime. With our own attention a step is one call (ragged.py), else one call a batch (batched.py).
"""

import importlib.metadata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import HyperlaneError, OutOfMemoryError, WorkerError, one_line
from hyperlane.transport.frame import Run
from hyperlane.worker.batched import BatchedCalls
from hyperlane.worker.caches import copy_slot, new_caches
from hyperlane.worker.decode_call import DecodeCall
from hyperlane.worker.device_call import DeviceSide, refuse_float32
from hyperlane.worker.gpu import DeviceRows, Gpu
from hyperlane.worker.memory import is_out_of_memory, step_out_of_memory, weights_out_of_memory
from hyperlane.worker.operators import operators_library
from hyperlane.worker.ragged import RaggedCalls
from hyperlane.worker.result import StepResult
from hyperlane.worker.signature import Cache, Signature
from hyperlane.worker.weights import load_weights


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
        self._weights: dict[str, Any] = {}  # which the session reads where they lie
        self._weights_bytes = 0
        try:
            if kind == "cuda":
                if "CUDAExecutionProvider" not in self._runtime.get_available_providers():
                    raise ValueError("this onnxruntime has no CUDA; install hyperlane[gpu], or use device=cpu")
                self._device = DeviceSide(Gpu(int(index or 0)), self._runtime.RunOptions, graphs=graphs)
            self._session = self._load(graph_path, threads, spinning, free_bytes)
        except (WorkerError, OutOfMemoryError):
            raise
        except Exception as error:  # onnxruntime's own types, one a kind of failure
            if is_out_of_memory(error):
                raise weights_out_of_memory(_bytes_beside(graph_path), free_bytes) from error
            raise WorkerError(f"cannot load the shard {graph_path.name}: {one_line(error)[:300]}") from error
        self._signature = Signature.of(self._session)
        if self._device is not None:
            if self._signature.is_fused:
                refuse_float32(self._signature.caches)
            self._device.describe(self._signature.hidden_in, self._signature.hidden_out)
        left_bytes = None if free_bytes is None else free_bytes - self._weights_bytes
        self._caches: tuple[Cache, ...] = new_caches(self._signature, slots, context, self._device, left_bytes)
        self._live = np.zeros(slots, np.int64)  # how many positions of each slot hold keys and values
        self._calls = self._new_calls()

    @property
    def is_first(self) -> bool:
        """Whether it takes token ids."""
        return self._signature.is_first

    @property
    def is_last(self) -> bool:
        """Whether it gives candidates."""
        return self._signature.is_last

    def run(self, runs: Sequence[Run], rows: NDArray[Any] | DeviceRows, want_logits: bool = False) -> StepResult:
        """Compute one step.

        rows: token ids [R] in the first shard, else hidden states [R, D], in the order of `runs`.
        Outputs come in that order too; on a GPU hidden states stay there, and may still be under way.
        WorkerError if a run does not fit its slot, or ONNX Runtime fails.
        """
        self._check(runs, rows)
        try:
            result = self._calls.run(runs, rows, want_logits)
        except Exception as error:
            raise _step_error(len(rows), error) from error
        for run in runs:
            self._live[run.slot] = run.position + run.count
        return result

    def decode_call(self, rows: int) -> DecodeCall | None:
        """Where a step of one row a slot is computed without Python between frames; None where that cannot be."""
        if not isinstance(self._calls, RaggedCalls):
            return None
        try:
            call = self._calls.decode_call(rows, self._live, self._context)
        except Exception as error:
            raise _step_error(rows, error) from error
        if call is None:
            return None
        compute = call.run

        def run() -> None:
            try:
                compute()
            except Exception as error:
                raise _step_error(rows, error) from error

        return replace(call, run=run)

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
        copy_slot(self._caches, self._device, source, target, count)
        self._live[target] = count

    def close(self) -> None:
        """Free the weights and the cache."""
        self.wait()
        self._calls.close()
        self._caches = ()
        self._session = None
        self._weights.clear()
        self._device = None

    def _check(self, runs: Sequence[Run], rows: NDArray[Any] | DeviceRows) -> None:
        """Nothing may be written outside a slot, and no position may be left out."""
        if len(rows) != sum([run.count for run in runs]) or len({run.slot for run in runs}) != len(runs):
            raise WorkerError(f"a step of {len(rows)} rows does not match its {len(runs)} runs")
        expected = (len(rows), *self._signature.row_shape)
        if rows.shape != expected:
            raise WorkerError(f"rows of shape {rows.shape} where {expected} belongs")
        for run in runs:
            slot, outputs, position, count = run
            if slot >= self._slots or count < 1 or outputs > count:
                raise WorkerError(f"{run} is no run of a worker with {self._slots} slots")
            if position + count > self._context:
                raise WorkerError(f"position {position + count - 1} is beyond the context of {self._context} tokens")
            if position > self._live[slot]:
                raise WorkerError(f"slot {slot} holds {self._live[slot]} positions, the step starts at {position}")

    def _new_calls(self) -> RaggedCalls | BatchedCalls:
        made_of = (self._session, self._signature, self._caches)
        if self._signature.is_ragged:
            return RaggedCalls(*made_of, self._slots)
        return BatchedCalls(*made_of, self._live, self._context, self._device)

    def _load(self, graph_path: Path, threads: int, spinning: bool, free_bytes: int | None) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        if self._device is not None:  # a known length: what follows from it alone is computed now, not at every step
            options.add_free_dimension_override_by_name("L", self._context + 1)
        library = operators_library()
        if library is not None:
            options.register_custom_ops_library(library)
        if self._device is None:
            for name, array in load_weights(graph_path, free_bytes).items():
                self._weights[name] = self._runtime.OrtValue.ortvalue_from_numpy(array)
                self._weights_bytes += array.nbytes
                options.add_initializer(name, self._weights[name])
            return self._runtime.InferenceSession(graph_path, options, providers=["CPUExecutionProvider"])
        return self._device.load(
            lambda cuda: self._runtime.InferenceSession(
                graph_path, options, providers=[("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]
            )
        )


def _step_error(rows: int, error: Exception) -> HyperlaneError:
    """For one of onnxruntime's own types, one a kind of failure."""
    if is_out_of_memory(error):
        return step_out_of_memory(rows, error)
    return WorkerError(f"a step of {rows} rows failed: {one_line(error)[:300]}")


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
