"""A step as calls of a graph with ONNX Runtime's own attention: one call a batch (batches.py)."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.frame import Run
from hyperlane.worker.batched_call import Call, device_call, host_call
from hyperlane.worker.batches import Batch, batches
from hyperlane.worker.device_call import DeviceSide
from hyperlane.worker.gpu import DeviceRows
from hyperlane.worker.result import FIELDS, StepResult
from hyperlane.worker.signature import Cache, Signature

_KEPT = 64  # shapes of call that stay prepared


class BatchedCalls:
    """Calls of one graph, on a GPU where there is a `device`. For one thread at a time."""

    def __init__(
        self,
        session: Any,
        signature: Signature,
        caches: tuple[Cache, ...],
        live: NDArray[np.int64],
        context: int,
        device: DeviceSide | None,
    ) -> None:
        """live: how many positions each slot holds, kept up to date by the owner."""
        self._session, self._signature, self._device = session, signature, device
        self._caches: tuple[Cache, ...] = caches
        self._live, self._context = live, context
        self._calls: OrderedDict[tuple[int, ...], Call] = OrderedDict()

    def run(self, runs: Sequence[Run], rows: NDArray[Any] | DeviceRows, want_logits: bool) -> StepResult:
        """Rows in the order of `runs` -> their results, in new memory, or on the GPU and maybe still under way."""
        result = self._new_result(len(rows), sum(run.outputs for run in runs), want_logits)
        row_starts = [0, *accumulate(run.count for run in runs)]
        output_starts = [0, *accumulate(run.outputs for run in runs)]
        run_batch = self._run_on_host
        if self._device is not None:
            run_batch = self._run_on_device
            self._device.begin(rows, *(self._signature.hidden_out or (0, None)))
        for batch in batches(runs):
            call = run_batch(batch, runs, rows, row_starts, want_logits)
            if self._device is None or self._signature.is_last:
                self._collect(call, batch, runs, result, row_starts, output_starts)
        if self._device is None:
            return result
        if not self._signature.is_last:
            result = StepResult(hidden_RD=self._device.end())
        return replace(result, gpu_ns=self._device.when())

    def close(self) -> None:
        """Let go of the session and of all memory."""
        self._calls.clear()
        self._session, self._caches = None, ()

    def _run_on_host(
        self,
        batch: Batch,
        runs: Sequence[Run],
        rows: NDArray[Any] | DeviceRows,
        row_starts: Sequence[int],
        want_logits: bool,
    ) -> Call:
        call = self._prepared(batch, runs, want_logits)
        call.fill(batch, runs, rows, row_starts, self._live)
        self._session.run_with_iobinding(call.binding)
        return call

    def _run_on_device(
        self,
        batch: Batch,
        runs: Sequence[Run],
        rows: NDArray[Any] | DeviceRows,
        row_starts: Sequence[int],
        want_logits: bool,
    ) -> Call:
        """As on the host, but hidden states are copied from and to where the calls have theirs on the GPU."""
        device = self._device
        assert device is not None
        if device.reserve(batch.slots * batch.length):  # the calls are bound to what was too small
            self._calls.clear()
        call = self._prepared(batch, runs, want_logits)
        assert call.device is not None
        call.device.await_upload()
        call.fill(batch, runs, rows, row_starts, self._live)
        pieces = [(row_starts[i], (runs[i].slot - batch.first) * batch.length, runs[i].count) for i in batch.members]
        device.upload(call.device, pieces)
        self._session.run_with_iobinding(call.binding, call.device.options)
        device.download(call.device, pieces)
        if self._signature.is_last:
            device.gpu.stream.synchronize()
        return call

    def _prepared(self, batch: Batch, runs: Sequence[Run], want_logits: bool) -> Call:
        """The call for a batch of this shape on these slots, made once and kept while it is in use."""
        outputs = sum(runs[i].outputs for i in batch.members)
        key = (batch.first, batch.slots, batch.length, outputs, want_logits)
        call = self._calls.pop(key, None) or self._new_call(batch, outputs, want_logits)
        self._calls[key] = call
        if len(self._calls) > _KEPT:
            self._calls.popitem(last=False)
        return call

    def _new_call(self, batch: Batch, outputs: int, want_logits: bool) -> Call:
        made_of = (self._session, self._signature, self._caches)
        if self._device is None:
            return host_call(*made_of, batch, outputs, want_logits=want_logits)
        return device_call(*made_of, self._device, self._context, batch, outputs, want_logits=want_logits)

    def _new_result(self, rows: int, outputs: int, want_logits: bool) -> StepResult:
        if self._device is not None:  # hidden states stay there
            rows = 0
        fields: dict[str, Any] = {}
        for name in self._signature.wanted(want_logits):
            value = self._signature.outputs[name]
            shape = (rows, value.shape[-1]) if name == "hidden_out" else (outputs, *value.shape[1:])
            fields[FIELDS[name]] = np.empty(shape, value.type)
        return StepResult(**fields)

    def _collect(
        self,
        call: Call,
        batch: Batch,
        runs: Sequence[Run],
        result: StepResult,
        row_starts: Sequence[int],
        output_starts: Sequence[int],
    ) -> None:
        """Copy a call's outputs to where the step's order puts them."""
        if "hidden_out" not in call.outputs and batch.members == tuple(range(len(runs))):  # all, in this order
            for name, values in call.outputs.items():
                getattr(result, FIELDS[name])[...] = values
            return
        wanted = 0
        for i in batch.members:
            run, row = runs[i], runs[i].slot - batch.first
            for name, values in call.outputs.items():
                if name == "hidden_out":
                    assert isinstance(result.hidden_RD, np.ndarray)
                    result.hidden_RD[row_starts[i] : row_starts[i + 1]] = values[row]
                else:
                    target = getattr(result, FIELDS[name])
                    target[output_starts[i] : output_starts[i + 1]] = values[wanted : wanted + run.outputs]
            wanted += run.outputs
