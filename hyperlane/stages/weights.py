"""quantization=auto: whether the GPUs of a chain hold FP16 or INT4, by the time of a decode step on the model's layers.

INT4 reads a quarter of the bytes but its products for many rows are slow, so that it depends on the rows of a lane.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from hyperlane.artifacts import GpuWeights, WeightsTime, WorkerInfo
from hyperlane.control.client import ControlClient
from hyperlane.control.types import Probe, StepCase
from hyperlane.errors import HyperlaneError, one_line
from hyperlane.partition.memory import Workload
from hyperlane.quantization import Quantization
from hyperlane.quantization.auto import on_gpus
from hyperlane.stages.context import Context
from hyperlane.stages.kinds import FP16

WORTH = 0.05  # of a step: for less, weights stay exact

Ask = Callable[[WorkerInfo, Probe], Awaitable[Sequence[float]]]
"""Seconds of a probe's cases on a worker."""

log = logging.getLogger(__name__)


async def ask(worker: WorkerInfo, probe: Probe) -> Sequence[float]:
    with ControlClient(worker.control_address, worker.name) as client:
        return (await client.measure_compute(probe)).seconds


async def choose(
    context: Context, gpus: Sequence[WorkerInfo], workload: Workload, hops: int, ask: Ask = ask
) -> tuple[Quantization, GpuWeights]:
    """For a chain of so many workers, these of them on GPUs. Exact weights where one cannot be timed, and a warning."""
    case = StepCase(phase="decode", rows=workload.lane_rows(hops), past=workload.past)
    exact, small = on_gpus()
    try:
        times = [await _layer_s(context, quantization, case, gpus, ask) for quantization in (exact, small)]
    except HyperlaneError as error:
        log.warning("quantization=auto takes FP16: %s", one_line(error))
        return exact, GpuWeights(chosen=FP16, rows=case.rows, past=case.past)
    names = (FP16, small.name)
    is_worth = times[1] < (1 - WORTH) * times[0]
    return (small if is_worth else exact), GpuWeights(
        chosen=names[is_worth],
        rows=case.rows,
        past=case.past,
        times=tuple(WeightsTime(weights=name, layer_s=time) for name, time in zip(names, times, strict=True)),
    )


def quantization_of(weights: GpuWeights) -> Quantization:
    """What was chosen."""
    exact, small = on_gpus()
    return small if weights.chosen == small.name else exact


def describe(weights: GpuWeights) -> str:
    """The choice and why, in one line."""
    times = ", ".join(f"{1e6 * time.layer_s:.3g} us in {time.weights}" for time in weights.times)
    why = f"a layer's decode step of {weights.rows} rows takes {times}" if times else "they could not be timed"
    return f"{weights.chosen} on GPUs ({why})"


async def _layer_s(
    context: Context, quantization: Quantization, case: StepCase, gpus: Sequence[WorkerInfo], ask: Ask
) -> float:
    """A layer's seconds on the slowest of the GPUs: what further layers add to a step of one."""
    layers, probes = await _probes(context, quantization, case)
    found = []
    for worker in gpus:
        many, one = [(await ask(worker, probe))[0] for probe in probes]
        found.append(max((many - one) / (layers - 1), 0.2 * many / layers))
    return max(found)


async def _probes(context: Context, quantization: Quantization, case: StepCase) -> tuple[int, tuple[Probe, Probe]]:
    """Several layers, and one."""
    checkpoint = await context.checkpoint()
    from hyperlane.model.probe import probe_graphs  # reads torch, which by now is read

    make = partial(probe_graphs, operators=False, kv_bits=16)
    many, one, _ = await trio.to_thread.run_sync(
        make, checkpoint, context.store, FP16, quantization, abandon_on_cancel=True
    )
    made = [
        Probe(
            graph=graph.graph,
            weights=graph.weights,
            last=False,
            dtype=FP16,
            width=checkpoint.config.hidden_size,
            context=case.past + 2,
            cases=(case,),
        )
        for graph in (many, one)
    ]
    return many.layers, (made[0], made[1])
