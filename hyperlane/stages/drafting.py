"""What generate.speculate asks for: nothing, prompt lookup, or a small model that is exported and loaded here."""

import os
from typing import TYPE_CHECKING

from hyperlane.artifacts import Deployment
from hyperlane.config import Config, Speculate
from hyperlane.errors import ConfigError
from hyperlane.generate.draft_model import DraftModel
from hyperlane.generate.ngram import Ngram
from hyperlane.generate.speculation import Drafter, RowCost, Speculation
from hyperlane.model.store import LayerStore
from hyperlane.stages.cache import kv_bits

if TYPE_CHECKING:
    from hyperlane.generate.tokenizer import Tokenizer


def speculation(config: Config, deployment: Deployment, tokenizer: "Tokenizer") -> Speculation | None:
    """None where it is off; ConfigError where the draft model's tokens are others."""
    generate = config.generate
    if generate.speculate is Speculate.off:
        return None
    drafter: Drafter = Ngram() if generate.speculate is Speculate.ngram else _model(config, deployment, tokenizer)
    return Speculation(drafter, generate.draft_tokens, RowCost())


def _model(config: Config, deployment: Deployment, tokenizer: "Tokenizer") -> DraftModel:
    from hyperlane.generate.tokenizer import Tokenizer
    from hyperlane.model.assemble import assemble
    from hyperlane.model.export import export
    from hyperlane.model.source import resolve
    from hyperlane.worker.operators import operators_library
    from hyperlane.worker.session import Session

    model, store, source = config.model, LayerStore(config.store.path), config.generate.draft
    assert source is not None  # checked with the configuration
    checkpoint = resolve(source, None, model.architecture, model.seed, store)
    if not Tokenizer.load(checkpoint).is_like(tokenizer):
        raise ConfigError(f"generate.draft={source} has another tokenizer than {model.source}; give one of its family")
    manifest = export(checkpoint, store, model.dtype.value, config.quantization)
    operators = operators_library() is not None
    graph = store.put(assemble(manifest, store, 0, manifest.layers, operators=operators, kv_bits=kv_bits(config, ())))
    slots, context = deployment.slots, deployment.context
    threads = max(1, (os.cpu_count() or 1) // 2)
    session = Session(store.path(graph.sha256), slots=slots, context=context, threads=threads)
    return DraftModel(session, slots=slots, context=context, vocab_size=deployment.vocab_size)
