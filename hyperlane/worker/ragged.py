"""A step as one call of a graph whose attention takes rows of any slots: no row waits or is computed for nothing."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.frame import Run, row_positions

Columns = Mapping[str, tuple[type[np.generic], int | None]]
"""Outputs by name: the type and width of their rows, None where a row is one number."""

_KEPT = 64  # shapes of call that stay prepared
_KEPT_ROWS = 64  # of more rows, or of whole rows of logits, a call's memory outweighs what preparing it takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Memory for an input or output of a graph, as ONNX Runtime is told of it."""

    name: str
    type: type[np.generic]
    shape: tuple[int, ...]
    address: int


class RaggedCalls:
    """Calls of one graph on caches of all slots. For one thread at a time."""

    def __init__(
        self, session: Any, rows: tuple[str, type[np.generic], int | None], caches: Sequence[Bound], *, is_last: bool
    ) -> None:
        """rows: name, type and width of the input rows; None for token ids."""
        self._session, self._rows, self._caches, self._is_last = session, rows, caches, is_last
        self._calls: OrderedDict[tuple[int, ...], _Call] = OrderedDict()

    def run(self, runs: Sequence[Run], rows: NDArray[Any], outputs: Columns) -> dict[str, NDArray[Any]]:
        """Rows in the order of `runs` -> the outputs named, each new memory."""
        wanted = sum(run.outputs for run in runs)
        call = self._prepared(len(rows), wanted, outputs)
        call.rows[0] = rows
        if len(runs) == len(rows):  # most steps: one row a slot
            call.positions[0] = [run.position for run in runs]
            call.slots[:] = [run.slot for run in runs]
            if self._is_last:
                call.output_rows[:] = [i for i, run in enumerate(runs) if run.outputs]
        else:
            call.positions[0] = row_positions(runs)
            call.slots[:] = np.repeat([run.slot for run in runs], [run.count for run in runs])
            if self._is_last:
                call.output_rows[:] = _output_rows(runs)
        self._session.run_with_iobinding(call.binding)
        return {name: array[0].copy() if name == "hidden_out" else array.copy() for name, array in call.outputs.items()}

    def _prepared(self, rows: int, wanted: int, outputs: Columns) -> "_Call":
        key = (rows, wanted)
        call = None if "logits" in outputs else self._calls.pop(key, None)
        call = call or self._new_call(rows, wanted, outputs)
        if rows <= _KEPT_ROWS and "logits" not in outputs:
            self._calls[key] = call
            if len(self._calls) > _KEPT:
                self._calls.popitem(last=False)
        return call

    def _new_call(self, rows: int, wanted: int, outputs: Columns) -> "_Call":
        name, kind, width = self._rows
        call = _Call(
            binding=self._session.io_binding(),
            rows=np.zeros((1, rows) if width is None else (1, rows, width), kind),
            positions=np.zeros((1, rows), np.int64),
            slots=np.zeros(rows, np.int64),
            output_rows=np.zeros(wanted, np.int64),
            outputs={
                output: np.empty(_shape(output, rows, wanted, columns), type_)
                for output, (type_, columns) in outputs.items()
            },
        )
        inputs = {name: call.rows, "position_ids": call.positions, "row_slots": call.slots}
        if self._is_last:
            inputs["output_rows"] = call.output_rows
        for bound in (_bound(*item) for item in inputs.items()):
            call.binding.bind_input(bound.name, "cpu", 0, bound.type, bound.shape, bound.address)
        for cache in self._caches:
            place = ("cpu", 0, cache.type, cache.shape, cache.address)
            call.binding.bind_input(cache.name, *place)
            call.binding.bind_output(cache.name.replace("past_", "present_"), *place)
        for bound in (_bound(*item) for item in call.outputs.items()):
            call.binding.bind_output(bound.name, "cpu", 0, bound.type, bound.shape, bound.address)
        return call


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """Inputs and outputs of a call in memory of their own, bound once."""

    binding: Any
    rows: NDArray[Any]  # [1, R] ids or [1, R, D] hidden states
    positions: NDArray[np.int64]  # [1, R]
    slots: NDArray[np.int64]  # [R]
    output_rows: NDArray[np.int64]  # [N]
    outputs: dict[str, NDArray[Any]]


def _shape(output: str, rows: int, wanted: int, width: int | None) -> tuple[int, ...]:
    if output == "hidden_out":
        assert width is not None
        return (1, rows, width)
    return (wanted,) if width is None else (wanted, width)


def _output_rows(runs: Sequence[Run]) -> NDArray[np.int64]:
    """The last `outputs` rows of each run."""
    stops = np.cumsum([run.count for run in runs])
    return np.concatenate([np.arange(stop - run.outputs, stop) for run, stop in zip(runs, stops, strict=True)])


def _bound(name: str, array: NDArray[Any]) -> Bound:
    return Bound(name=name, type=array.dtype.type, shape=array.shape, address=array.ctypes.data)
