"""Which export each worker's shard is made of."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from hyperlane.artifacts import Deployment, GpuWeights, Manifest, WorkerInfo
from hyperlane.config import Generate
from hyperlane.control.types import Probe
from hyperlane.errors import WorkerError
from hyperlane.quantization import Quantization
from hyperlane.quantization.auto import Auto
from hyperlane.quantization.int8 import Int8
from hyperlane.quantization.none import NoQuantization
from hyperlane.stages import deploy, weights
from hyperlane.stages.context import Context
from tests.fixtures_model import Exported

CHAIN = ("cpu", "cuda:1")


class _Context:
    def __init__(self, exported: Exported, quantization: Quantization) -> None:
        self.manifest, self._checkpoint, self.store = exported.manifest, exported.checkpoint, exported.store
        codec = SimpleNamespace(codec=SimpleNamespace(name="raw"))
        self.config = SimpleNamespace(quantization=quantization, generate=Generate(slots=8, lanes=2), transport=codec)
        self.artifacts: dict[str, object] = {}
        self.plan = SimpleNamespace(model=SimpleNamespace(max_positions=512))

    async def checkpoint(self) -> Any:
        return self._checkpoint


def _worker(name: str, device: str) -> WorkerInfo:
    return cast(WorkerInfo, SimpleNamespace(name=name, device=device, operators=0))


def _manifests(
    exported: Exported, quantization: Quantization, devices: Sequence[str], ask: weights.Ask = weights.ask
) -> tuple[dict[str, Manifest], GpuWeights | None]:
    workers = [_worker(f"w{i}", device) for i, device in enumerate(devices)]
    context = cast(Context, _Context(exported, quantization))
    return trio.run(partial(deploy._manifests, context, workers, ask))


def test_a_gpu_gets_its_shard_in_fp16_and_the_others_as_the_model_is(tiny: Exported) -> None:
    found, chosen = _manifests(tiny, Int8(), CHAIN)
    assert found["w0"] == tiny.manifest
    assert (found["w1"].dtype, len(found["w1"].parts)) == ("float16", len(tiny.manifest.parts))
    assert chosen is None


def test_weights_as_they_are_stay_so_on_a_gpu(tiny: Exported) -> None:
    assert _manifests(replace(tiny, checkpoint=cast(Any, None)), NoQuantization(), CHAIN)[0]["w1"] == tiny.manifest


@pytest.mark.parametrize("quantization", [Int8(), Auto()], ids=["int8", "auto"])
def test_without_gpus_nothing_is_exported_again(tiny: Exported, quantization: Quantization) -> None:
    found, chosen = _manifests(replace(tiny, checkpoint=cast(Any, None)), quantization, ["cpu"])
    assert (found, chosen) == ({"w0": tiny.manifest}, None)


class Measured:
    """A GPU on which a layer in INT4 takes so much of the time of one in FP16."""

    def __init__(self, share: float) -> None:
        self.share, self.probes = share, list[Probe]()

    async def __call__(self, worker: WorkerInfo, probe: Probe) -> Sequence[float]:
        assert worker.device == "cuda:1"
        self.probes.append(probe)
        is_small = b"MatMulNBits" in probe.graph
        return [1e-4 + len(probe.weights) * 1e-4 * (self.share if is_small else 1.0)]


@pytest.mark.parametrize(
    ("share", "chosen"), [(0.5, "int4-kquant-symmetric"), (0.97, "float16"), (1.6, "float16")], ids=str
)
def test_auto_takes_what_is_faster_on_the_gpu(tiny: Exported, share: float, chosen: str) -> None:
    gpu = Measured(share)
    found, told = _manifests(tiny, Auto(), CHAIN, gpu)
    assert told is not None
    assert (told.chosen, told.rows, told.past) == (chosen, 4, 256)
    assert [time.layer_s for time in told.times] == pytest.approx([1e-4, share * 1e-4])
    assert {(case.phase, case.rows) for probe in gpu.probes for case in probe.cases} == {("decode", 4)}
    assert (found["w1"].dtype, found["w1"].quantization) == ("float16", chosen.replace("float16", "none"))
    assert found["w0"] == tiny.manifest
    assert "us in float16" in weights.describe(told)


def test_layers_that_move_in_a_run_stay_as_they_are_stored(tiny: Exported) -> None:
    async def fail(worker: WorkerInfo, probe: Probe) -> Sequence[float]:
        raise AssertionError("nothing is to be timed")

    context = _Context(tiny, Auto())
    held = GpuWeights(chosen="int4-kquant-symmetric", rows=4, past=256)
    context.artifacts["deploy"] = Deployment(
        key="", shards=(), boundaries=(), slots=1, context=1, hidden_size=1, vocab_size=1, dtype="", gpu_weights=held
    )
    workers = [_worker("w1", "cuda:0")]
    found, told = trio.run(partial(deploy._manifests, cast(Context, context), workers, fail))
    assert (found["w1"].quantization, told) == (held.chosen, held)


def test_auto_stays_exact_where_a_gpu_cannot_be_timed(tiny: Exported, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(worker: WorkerInfo, probe: Probe) -> Sequence[float]:
        raise WorkerError("no room")

    found, told = _manifests(tiny, Auto(), CHAIN, fail)
    assert told is not None
    assert (told.chosen, told.times, found["w1"].quantization) == ("float16", (), "none")
    assert "quantization=auto takes FP16: no room" in caplog.text
    assert weights.describe(told) == "float16 on GPUs (they could not be timed)"
