"""Teacher-forced quality of stored weights: the next token's distribution on texts, against the same model in FP32."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.compose import compose
from hyperlane.config import Config
from hyperlane.generate.tokenizer import Tokenizer
from hyperlane.model.assemble import assemble
from hyperlane.model.export import export
from hyperlane.model.source import Checkpoint, resolve
from hyperlane.model.store import LayerStore
from hyperlane.stages.cache import kv_bits
from hyperlane.transport.calibrate import CALIBRATION_TEXT, kl_divergence
from hyperlane.transport.frame import Run
from hyperlane.worker.operators import operators_library
from hyperlane.worker.session import Session
from tests.bench.engines.ours import OVERRIDES

SEQUENCE = 512
TEXTS = (CALIBRATION_TEXT, Path(__file__).parents[2] / "LICENSE")
"""A story, dialogue and code that were written for this project; and a text that every model knows."""


@dataclass(slots=True)
class Quality:
    """Sums over predicted tokens."""

    tokens: int = 0
    agreed: int = 0
    kl: float = 0.0
    nll: float = 0.0
    exact_nll: float = 0.0

    def add(self, exact_NV: NDArray[np.float32], found_NV: NDArray[np.float32], ids: Sequence[int]) -> None:
        self.tokens += len(ids) - 1
        for start in range(0, len(ids) - 1, 64):
            stop = min(start + 64, len(ids) - 1)
            exact, found, following = exact_NV[start:stop], found_NV[start:stop], ids[start + 1 : stop + 1]
            self.agreed += int((exact.argmax(axis=1) == found.argmax(axis=1)).sum())
            self.kl += float(kl_divergence(exact, found).sum())
            self.nll += _nll(found, following)
            self.exact_nll += _nll(exact, following)

    @property
    def agreement(self) -> float:
        """Share of tokens for which both choose the same one."""
        return self.agreed / self.tokens

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.nll / self.tokens))

    @property
    def exact_perplexity(self) -> float:
        return float(np.exp(self.exact_nll / self.tokens))

    @property
    def mean_kl(self) -> float:
        return self.kl / self.tokens


def agreement(overrides: Sequence[str]) -> float:
    """Percent of next tokens that a configuration's weights choose as FP32 does."""
    config = compose("smollm2_135m", [*OVERRIDES, *overrides])
    return 100 * quality(config).agreement


def quality(config: Config) -> Quality:
    """Of a configuration's weights; activations are not coded on the way."""
    exact_config = compose("smollm2_135m", ["quantization=none"])
    checkpoint = resolve(config.model.source)
    found = Quality()
    with shards(checkpoint, exact_config) as exact, shards(checkpoint, config) as tested:
        for ids in sequences(Tokenizer.load(checkpoint)):
            found.add(logits(exact, ids), logits(tested, ids), ids)
    return found


def sequences(tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The texts in pieces of 512 tokens; what is left over is dropped."""
    for text in TEXTS:
        ids = tokenizer.encode(text.read_text())
        for start in range(0, len(ids) - SEQUENCE + 1, SEQUENCE):
            yield ids[start : start + SEQUENCE]


@contextmanager
def shards(
    checkpoint: Checkpoint, config: Config, *, count: int = 2, slots: int = 1, context: int = SEQUENCE
) -> Iterator[list[Session]]:
    """The model in `count` shards of equal size, on one thread each."""
    store = LayerStore(config.store.path)
    manifest = export(checkpoint, store, config.model.dtype.value, config.quantization)
    bounds = [manifest.layers * index // count for index in range(count + 1)]
    make = partial(assemble, manifest, store, operators=operators_library() is not None, kv_bits=kv_bits(config, ()))
    graphs = [store.put(make(start, stop)) for start, stop in pairwise(bounds)]
    opened = [Session(store.path(g.sha256), slots=slots, context=context, threads=1) for g in graphs]
    try:
        yield opened
    finally:
        for session in opened:
            session.close()


def logits(chain: Sequence[Session], ids: Sequence[int]) -> NDArray[np.float32]:
    """The logits [N, V] of a whole sequence."""
    run = Run(0, len(ids), 0, len(ids))
    rows: Any = np.asarray(ids, np.int64)
    for session in chain[:-1]:
        rows = session.run([run], rows).hidden_RD
    found = chain[-1].run([run], rows, want_logits=True).logits_NV
    assert found is not None
    return found


def _nll(logits_NV: NDArray[np.float32], following: Sequence[int]) -> float:
    """Summed negative log-likelihood."""
    rows = logits_NV.astype(np.float64)
    most = rows.max(axis=1)
    spread = most + np.log(np.exp(rows - most[:, None]).sum(axis=1))
    return float((spread - rows[np.arange(len(rows)), following]).sum())
