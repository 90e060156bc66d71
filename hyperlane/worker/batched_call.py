"""Prepared calls of a batch: memory for their inputs and outputs, bound once, on the host or on a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.frame import Run
from hyperlane.worker.batches import Batch
from hyperlane.worker.device_call import DeviceCall, DeviceSide, Shapes
from hyperlane.worker.gpu import DeviceRows
from hyperlane.worker.signature import Cache, Signature, bind_caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Inputs and outputs of a call in memory of their own; with `device` pinned, and copied."""

    binding: Any
    rows_BS: NDArray[Any] | None  # [B, S] ids or [B, S, D] hidden states; None: those are on the GPU
    positions_BS: NDArray[np.int64]
    seqlens_k_B: NDArray[np.int32]
    total_length: NDArray[np.int32]
    output_rows_N: NDArray[np.int64]
    outputs: dict[str, NDArray[Any]]
    device: DeviceCall | None = None

    def fill(
        self,
        batch: Batch,
        runs: Sequence[Run],
        rows: NDArray[Any] | DeviceRows,
        row_starts: Sequence[int],
        live: NDArray[np.int64],
    ) -> None:
        """Write the inputs, but hidden states on a GPU; `live` is what each slot holds.

        An idle slot computes whatever it held, just behind its live keys.
        """
        self.positions_BS[:, 0] = live[batch.first : batch.first + batch.slots]
        if batch.length == 1:
            self._fill_single(batch, runs, rows, row_starts)
            return
        wanted = 0
        for i in batch.members:
            run, row = runs[i], runs[i].slot - batch.first
            if self.rows_BS is not None:
                assert not isinstance(rows, DeviceRows)
                self.rows_BS[row] = rows[row_starts[i] : row_starts[i + 1]]
            stop = row * batch.length + run.count
            self.positions_BS[row] = np.arange(run.position, run.position + run.count)
            self.output_rows_N[wanted : wanted + run.outputs] = np.arange(stop - run.outputs, stop)
            wanted += run.outputs
        self._fill_lengths()

    def _fill_single(
        self, batch: Batch, runs: Sequence[Run], rows: NDArray[Any] | DeviceRows, row_starts: Sequence[int]
    ) -> None:
        """A row a slot, as in most steps: a few writes for all of them."""
        members = batch.members
        at = [runs[i].slot - batch.first for i in members]
        self.positions_BS[at, 0] = [runs[i].position for i in members]
        self.output_rows_N[:] = [row for row, i in zip(at, members, strict=True) if runs[i].outputs]
        if self.rows_BS is not None:
            assert not isinstance(rows, DeviceRows)
            self.rows_BS[at, 0] = rows[[row_starts[i] for i in members]]
        self._fill_lengths()

    def _fill_lengths(self) -> None:
        self.seqlens_k_B[:] = self.positions_BS[:, -1]
        if self.device is None or self.positions_BS.shape[1] > 1:
            self.total_length[...] = self.seqlens_k_B.max() + 1


def host_call(
    session: Any, signature: Signature, caches: tuple[Cache, ...], batch: Batch, outputs: int, *, want_logits: bool
) -> Call:
    """outputs: rows of candidates or logits."""
    B, S, binding = batch.slots, batch.length, session.io_binding()
    call = Call(
        binding=binding,
        rows_BS=np.zeros((B, S, *signature.row_shape), signature.rows.type),
        positions_BS=np.zeros((B, S), np.int64),
        seqlens_k_B=np.zeros(B, np.int32),
        total_length=np.zeros((), np.int32),
        output_rows_N=np.zeros(outputs, np.int64),
        outputs={},
    )
    assert call.rows_BS is not None
    inputs = {signature.rows.name: call.rows_BS, "position_ids": call.positions_BS}
    if signature.is_fused:
        inputs |= {"seqlens_k": call.seqlens_k_B, "total_sequence_length": call.total_length}
    if signature.is_last:
        inputs["output_rows"] = call.output_rows_N
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    bind_caches(binding, caches, ("cpu", 0), batch.first, B)
    for name in signature.wanted(want_logits):
        value = signature.outputs[name]
        shape = (B, S, value.shape[-1]) if name == "hidden_out" else (outputs, *value.shape[1:])
        array = call.outputs[name] = np.empty(shape, value.type)
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return call


def device_call(
    session: Any,
    signature: Signature,
    caches: tuple[Cache, ...],
    device: DeviceSide,
    context: int,
    batch: Batch,
    outputs: int,
    *,
    want_logits: bool,
) -> Call:
    """As `host_call`; hidden states stand where all calls have theirs on the GPU."""
    B, S, binding = batch.slots, batch.length, session.io_binding()
    shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {"position_ids": ((B, S), np.int64)}
    if signature.is_fused:
        shapes["seqlens_k"] = ((B,), np.int32)
    if signature.is_first:
        shapes["input_ids"] = ((B, S), np.int64)
    if signature.is_last:
        shapes["output_rows"] = ((outputs,), np.int64)
    wanted = [signature.outputs[name] for name in signature.wanted(want_logits) if name != "hidden_out"]
    results: Shapes = {value.name: ((outputs, *value.shape[1:]), value.type) for value in wanted}
    side = device.new_call(shapes, results, captured=S == 1)
    place = ("cuda", device.gpu.index)
    for name, (shape, kind) in shapes.items():
        binding.bind_input(name, *place, kind, shape, side.inputs.address(name))
    for name, (shape, kind) in results.items():
        binding.bind_output(name, *place, kind, shape, side.outputs.address(name))
    if signature.hidden_in is not None:
        width, hidden = signature.hidden_in
        binding.bind_input("hidden_in", *place, hidden.type, (B, S, width), device.hidden_in)
    if signature.hidden_out is not None:
        width, hidden = signature.hidden_out
        binding.bind_output("hidden_out", *place, hidden.type, (B, S, width), device.hidden_out)
    # What a step's longest sequence holds; a captured graph goes on using it, so that it is the most.
    total_length = np.full((), context + 1, np.int32)
    if signature.is_fused:
        binding.bind_input("total_sequence_length", "cpu", 0, np.int32, (), total_length.ctypes.data)
    bind_caches(binding, caches, place, batch.first, B)
    arrays = side.inputs.arrays
    return Call(
        binding=binding,
        rows_BS=arrays.get("input_ids"),
        positions_BS=arrays["position_ids"],
        seqlens_k_B=arrays.get("seqlens_k", np.empty(B, np.int32)),
        total_length=total_length,
        output_rows_N=arrays.get("output_rows", np.empty(outputs, np.int64)),
        outputs=side.outputs.arrays,
        device=side,
    )
