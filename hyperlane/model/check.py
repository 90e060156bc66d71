"""Does an export compute what HF computes? Chained shards against HF's own model, on seeded weights."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedModel

from hyperlane.artifacts import Manifest
from hyperlane.errors import ModelError
from hyperlane.model.assemble import assemble
from hyperlane.model.export import export
from hyperlane.model.families import Family
from hyperlane.model.skeleton import layer_kinds, layers_config, parameter_shapes, skeleton
from hyperlane.model.source import Checkpoint
from hyperlane.model.store import LayerStore
from hyperlane.model.weights.random import Random
from hyperlane.quantization import Quantization
from hyperlane.quantization.int8 import Int8
from hyperlane.quantization.none import NoQuantization
from hyperlane.transport.frame import Run
from hyperlane.worker.gpu import on_host
from hyperlane.worker.operators import operators_library
from hyperlane.worker.session import Session

TOLERANCE = 1e-4  # of the largest logit; FP32 kernels that sum in another order stay well below
FUSED_TOLERANCE = 1e-2  # between quantized logits with our operators and without; a wrong fusion is off by a half
_WINDOW = 8  # a sliding window is made this small, so that a short text reaches beyond it
_STEPS = (11, 2, 6, 1, 1, 1, 1, 1)  # prefill in chunks, then decode


def refuse_unless_exact(checkpoint: Checkpoint) -> None:
    """ModelError if shards of this family, with the sizes of this model, give other logits than HF."""
    difference = difference_from_hf(checkpoint)
    if not difference < TOLERANCE:
        raise ModelError(
            f"{checkpoint.config.model_type} is not among the tested families, and its exported logits differ "
            f"from Hugging Face's by {difference:.2g} of the largest (allowed: {TOLERANCE:g}); it cannot be used"
        )
    fused, *lowered = differences_from_hf(checkpoint, Int8(), _variants())
    if any(not abs(fused - other) < FUSED_TOLERANCE for other in lowered):
        raise ModelError(
            f"{checkpoint.config.model_type} is not among the tested families, and its quantized logits differ from "
            f"Hugging Face's by {fused:.2g} of the largest with our operators and {lowered[0]:.2g} without; "
            "use quantization=none"
        )


def difference_from_hf(checkpoint: Checkpoint) -> float:
    """The largest difference of a logit, in parts of the largest logit, over one text in chunks and single steps.

    The model is cut to one layer of each kind, at least two, with seeded weights.
    """
    return max(differences_from_hf(checkpoint, NoQuantization(), _variants()))


def _variants() -> tuple[bool, ...]:
    """With our own operators, where this machine has them, and without."""
    return (False,) if operators_library() is None else (True, False)


def differences_from_hf(
    checkpoint: Checkpoint, quantization: Quantization, variants: Sequence[bool]
) -> tuple[float, ...]:
    """The same for an export in some quantization: with our own operators (True) and without."""
    sample = _sample(checkpoint)
    ids = np.random.default_rng(0).integers(0, sample.config.vocab_size, sum(_STEPS))
    with torch.no_grad():
        expected_SV = reference(sample)(torch.from_numpy(ids)[None]).logits[0].float().numpy()
    with TemporaryDirectory(prefix="hyperlane-check-") as folder:
        store = LayerStore(Path(folder))
        manifest = export(sample, store, "float32", quantization)
        found = [_chained_logits(store, manifest, ids, operators=operators) for operators in variants]
    return tuple(float(np.abs(found_SV - expected_SV).max() / np.abs(expected_SV).max()) for found_SV in found)


def reference(checkpoint: Checkpoint) -> PreTrainedModel:
    """HF's own model with a checkpoint's tensors, in FP32."""
    model = skeleton(checkpoint.config)
    tensors = {name: checkpoint.tensor(name).float() for name in parameter_shapes(model)}
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    return model


def _sample(checkpoint: Checkpoint) -> Checkpoint:
    config = copy.deepcopy(checkpoint.config)
    if getattr(config, "sliding_window", None):
        config.sliding_window = _WINDOW
    config = layers_config(config, _one_of_each_kind(config, checkpoint.family))
    weights = Random(parameter_shapes(skeleton(config)), 0)
    family = replace(checkpoint.family, checked=True)
    return replace(checkpoint, config=config, family=family, weights=weights, blocks=None, identity="sample")


def _one_of_each_kind(config: PretrainedConfig, family: Family) -> list[int]:
    kinds = layer_kinds(config, family)
    indices = [i for i, kind in enumerate(kinds) if kind not in kinds[:i]]
    return indices if len(indices) > 1 else list(range(min(2, len(kinds))))


def _chained_logits(
    store: LayerStore, manifest: Manifest, ids_S: NDArray[np.int64], *, operators: bool
) -> NDArray[Any]:
    """Logits [S, V] of a text through one shard a layer."""
    shards = []
    for start in range(manifest.layers):
        path = store.path(store.put(assemble(manifest, store, start, start + 1, operators=operators)).sha256)
        shards.append(Session(path, slots=1, context=len(ids_S), threads=1))
    logits, position = [], 0
    for count in _STEPS:
        runs = [Run(slot=0, outputs=count, position=position, count=count)]
        rows: NDArray[Any] = ids_S[position : position + count]
        for shard in shards:
            result = shard.run(runs, rows, want_logits=True)
            rows = rows if result.hidden_RD is None else on_host(result.hidden_RD)
        assert result.logits_NV is not None
        logits.append(result.logits_NV)
        position += count
    return np.concatenate(logits)
