"""Which operators a worker's graph is made of."""

from dataclasses import replace

import pytest

from hyperlane.stages.kinds import GraphKind, has_operators, kind_of
from hyperlane.worker import operators
from hyperlane.worker.operators import GPU_OPERATORS_VERSION, OPERATORS_VERSION, operators_version
from tests.partition.test_partition import cluster

GPU = replace(cluster(1).workers[0], device="cuda:0", operators=GPU_OPERATORS_VERSION)


def test_a_gpu_has_operators_in_fp16_only() -> None:
    assert kind_of(GPU, "float16") == GraphKind("float16", operators=False, fused=True, on_gpu=True)
    assert kind_of(GPU, "float32") == GraphKind("float32", operators=False, fused=False, on_gpu=False)
    assert not kind_of(replace(GPU, operators=0), "float16").on_gpu


def test_versions_of_gpus_and_of_cpus_are_not_each_others() -> None:
    assert not has_operators(replace(GPU, operators=OPERATORS_VERSION))
    cpu = replace(GPU, device="cpu", operators=GPU_OPERATORS_VERSION)
    assert GPU_OPERATORS_VERSION != OPERATORS_VERSION
    assert not kind_of(cpu, "float16").on_gpu


def test_a_gpu_announces_them_where_it_can_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        def device_count(self) -> int:
            return 2

        def set_device(self, index: int) -> None:
            self.index = index

        def has_operators(self) -> bool:
            return self.index == 1

    monkeypatch.setattr(operators, "cuda", Module)
    assert [operators_version(f"cuda:{i}") for i in range(3)] == [0, GPU_OPERATORS_VERSION, 0]
    monkeypatch.setattr(operators, "cuda", lambda: None)
    assert operators_version("cuda:1") == 0
