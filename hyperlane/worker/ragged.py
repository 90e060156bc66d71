"""A step as one call of a graph whose attention takes rows of any slots: no row waits or is computed for nothing."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.frame import Run, row_positions
from hyperlane.worker.decode_call import DecodeCall
from hyperlane.worker.gpu import DeviceRows
from hyperlane.worker.result import FIELDS, StepResult
from hyperlane.worker.signature import Cache, Signature, Value, bind_caches

_KEPT = 64  # shapes of call that stay prepared
_KEPT_ROWS = 64  # of more rows, or of whole rows of logits, a call's memory outweighs what preparing it takes


class RaggedCalls:
    """Calls of one graph on caches of `slots` slots. For one thread at a time."""

    def __init__(self, session: Any, signature: Signature, caches: tuple[Cache, ...], slots: int) -> None:
        self._session, self._signature, self._slots = session, signature, slots
        self._caches: tuple[Cache, ...] = caches
        self._calls: OrderedDict[tuple[int, int], _Call] = OrderedDict()

    def run(self, runs: Sequence[Run], rows: NDArray[Any] | DeviceRows, want_logits: bool) -> StepResult:
        """Rows in the order of `runs` -> their results, in new memory."""
        assert not isinstance(rows, DeviceRows)
        call = self._prepared(len(rows), sum([run.outputs for run in runs]), want_logits)
        call.rows[0] = rows
        if len(runs) == len(rows):  # most steps: one row a slot
            call.positions[0] = [run.position for run in runs]
            call.slots[:] = [run.slot for run in runs]
            if self._signature.is_last:
                call.output_rows[:] = [i for i, run in enumerate(runs) if run.outputs]
        else:
            call.positions[0] = row_positions(runs)
            call.slots[:] = np.repeat([run.slot for run in runs], [run.count for run in runs])
            if self._signature.is_last:
                call.output_rows[:] = _output_rows(runs)
        self._run(call)
        found: dict[str, Any] = {FIELDS[name]: array.copy() for name, array in call.outputs.items()}
        return StepResult(**found)

    def decode_call(self, rows: int, live: NDArray[np.int64], context: int) -> DecodeCall | None:
        """A call of its own for steps of one row a slot; None for so many rows that no call stays prepared."""
        if rows > _KEPT_ROWS:
            return None
        call = self._new_call(rows, rows, want_logits=False)
        call.output_rows[:] = np.arange(rows)
        return DecodeCall(
            run=lambda: self._run(call),
            rows=call.rows[0],
            positions=call.positions[0],
            slots=call.slots,
            outputs=tuple(call.outputs.values()),
            live=live,
            context=context,
        )

    def close(self) -> None:
        """Let go of the session and of all memory."""
        self._calls.clear()
        self._session, self._caches = None, ()

    def _run(self, call: "_Call") -> None:
        """Memory that a call is bound to is there as long as the session is."""
        if self._session is None:
            raise RuntimeError("the session is closed")
        self._session.run_with_iobinding(call.binding)

    def _prepared(self, rows: int, wanted: int, want_logits: bool) -> "_Call":
        if want_logits or rows > _KEPT_ROWS:
            return self._new_call(rows, wanted, want_logits)
        key = (rows, wanted)
        call = self._calls.pop(key, None) or self._new_call(rows, wanted, want_logits)
        self._calls[key] = call
        if len(self._calls) > _KEPT:
            self._calls.popitem(last=False)
        return call

    def _new_call(self, rows: int, wanted: int, want_logits: bool) -> "_Call":
        signature = self._signature
        outputs = [signature.outputs[name] for name in signature.wanted(want_logits)]
        memory = {value.name: np.empty(_shape(value, rows, wanted), value.type) for value in outputs}
        call = _Call(
            binding=self._session.io_binding(),
            rows=np.zeros((1, rows, *signature.row_shape), signature.rows.type),
            positions=np.zeros((1, rows), np.int64),
            slots=np.zeros(rows, np.int64),
            output_rows=np.zeros(wanted, np.int64),
            outputs={name: array[0] if name == "hidden_out" else array for name, array in memory.items()},
        )
        inputs = {signature.rows.name: call.rows, "position_ids": call.positions, "row_slots": call.slots}
        if signature.is_last:
            inputs["output_rows"] = call.output_rows
        for name, array in inputs.items():
            call.binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in memory.items():
            call.binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        bind_caches(call.binding, self._caches, ("cpu", 0), 0, self._slots)
        return call


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """Inputs and outputs of a call in memory of their own, bound once."""

    binding: Any
    rows: NDArray[Any]  # [1, R] ids or [1, R, D] hidden states
    positions: NDArray[np.int64]  # [1, R]
    slots: NDArray[np.int64]  # [R]
    output_rows: NDArray[np.int64]  # [N]
    outputs: dict[str, NDArray[Any]]  # [R, D] or [N, ..]


def _shape(value: Value, rows: int, wanted: int) -> tuple[int, ...]:
    if value.name == "hidden_out":
        return (1, rows, value.shape[-1])
    return (wanted, *value.shape[1:])


def _output_rows(runs: Sequence[Run]) -> NDArray[np.int64]:
    """The last `outputs` rows of each run."""
    stops = np.cumsum([run.count for run in runs])
    return np.concatenate([np.arange(stop - run.outputs, stop) for run, stop in zip(runs, stops, strict=True)])
