"""A session's path on a GPU, with the host in the GPU's place: the same rows as on the host, and when it computed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyperlane.model.assemble import assemble
from hyperlane.model.export import export
from hyperlane.model.store import LayerStore
from hyperlane.quantization.none import NoQuantization
from hyperlane.transport.frame import Run
from hyperlane.worker import session as module
from hyperlane.worker.device_call import DeviceSide
from hyperlane.worker.gpu import DeviceRows, RowRing
from hyperlane.worker.session import Session
from tests.fixtures_model import Exported
from tests.worker.fake_cuda import FakeGpu, OnHost

IDS = np.random.default_rng(3).integers(0, 260, 16)
STEPS = (
    [Run(1, 0, 0, 6)],
    [Run(0, 1, 0, 3)],
    [Run(0, 1, 3, 1), Run(1, 1, 6, 1)],
    [Run(1, 1, 7, 1), Run(0, 2, 4, 2)],
)


def ids_of(runs: list[Run]) -> NDArray[np.int64]:
    return np.concatenate([IDS[run.position : run.position + run.count] for run in runs])


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Session]:
    """Opens sessions on a stand-in for a GPU."""

    class Options:
        def add_run_config_entry(self, key: str, value: str) -> None: ...

    def make(device: FakeGpu, new_options: Any, *, graphs: bool) -> DeviceSide:
        return DeviceSide(device, Options, graphs=False)  # type: ignore[arg-type]

    def load(self: Session, graph_path: Path, threads: int, spinning: bool, free_bytes: int | None) -> Any:
        return OnHost(module._onnxruntime().InferenceSession(graph_path, providers=["CPUExecutionProvider"]))

    monkeypatch.setattr(module, "Gpu", FakeGpu)
    monkeypatch.setattr(module, "DeviceSide", make)
    monkeypatch.setattr(Session, "_load", load)
    runtime = module._onnxruntime()
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    return lambda path: Session(path, slots=3, context=32, threads=1, device="cuda:0")


@pytest.mark.parametrize("fused", [True, False], ids=["fp16", "fp32 in pieces"])
def test_rows_and_candidates_are_those_of_the_host(
    tiny: Exported, tmp_path: Path, on_gpu: Callable[[Path], Session], fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = tiny.store, tiny.manifest
    if fused:
        store = LayerStore(tmp_path)
        manifest = export(tiny.checkpoint, store, "float16", NoQuantization())
    paths = [
        store.path(store.put(assemble(manifest, store, start, stop, fused=fused)).sha256)
        for start, stop in ((0, 2), (2, 4))
    ]
    first, last = (on_gpu(path) for path in paths)
    found, late = [], []
    for runs in STEPS:
        begin_ns = time.monotonic_ns()
        middle = first.run(runs, ids_of(runs))
        assert isinstance(middle.hidden_RD, DeviceRows)
        result = last.run(runs, coming(middle.hidden_RD, late))
        found.append(result.ids_NK)
        assert middle.gpu_ns is not None
        assert result.gpu_ns is not None
        times = [begin_ns, *middle.gpu_ns(), *result.gpu_ns(), time.monotonic_ns()]
        assert times == sorted(times)
    assert len(late) == len(STEPS)
    monkeypatch.undo()
    expected = [Session(path, slots=3, context=32, threads=1) for path in paths]
    for runs, ids_NK in zip(STEPS, found, strict=True):
        rows = expected[0].run(runs, ids_of(runs)).hidden_RD
        assert rows is not None
        assert ids_NK is not None
        wanted = expected[1].run(runs, rows).ids_NK
        assert wanted is not None
        assert np.array_equal(ids_NK[:, 0], wanted[:, 0])


def coming(rows: DeviceRows, late: list[DeviceRows]) -> DeviceRows:
    """The same rows, which are brought just before they are read, as by a shortcut on one GPU."""

    def arrive(placed: DeviceRows) -> None:
        placed.gpu.stream.copy(placed.address, rows.address, len(rows) * rows.row_bytes)
        late.append(placed)

    return RowRing(rows.gpu, 2, rows.row_bytes).take(*rows.shape, rows.dtype, arrive)
