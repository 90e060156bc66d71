"""Which export each worker's shard is made of."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import trio

from hyperlane.artifacts import WorkerInfo
from hyperlane.quantization.none import NoQuantization
from hyperlane.stages import deploy
from hyperlane.stages.context import Context
from tests.fixtures_model import Exported


class _Context:
    def __init__(self, exported: Exported) -> None:
        self.manifest, self._checkpoint, self.store = exported.manifest, exported.checkpoint, exported.store
        self.config = SimpleNamespace(quantization=NoQuantization())

    async def checkpoint(self) -> Any:
        return self._checkpoint


def _worker(name: str, device: str) -> WorkerInfo:
    return cast(WorkerInfo, SimpleNamespace(name=name, device=device))


def test_a_gpu_gets_its_shard_in_fp16_and_the_others_as_the_model_is(tiny: Exported) -> None:
    context = cast(Context, _Context(tiny))
    found = trio.run(deploy._manifests, context, [_worker("a", "cpu"), _worker("b", "cuda:1")])
    assert found["a"] == tiny.manifest
    assert (found["b"].dtype, len(found["b"].parts)) == ("float16", len(tiny.manifest.parts))


def test_without_gpus_nothing_is_exported_again(tiny: Exported) -> None:
    context = cast(Context, _Context(replace(tiny, checkpoint=cast(Any, None))))
    assert trio.run(deploy._manifests, context, [_worker("a", "cpu")]) == {"a": tiny.manifest}
