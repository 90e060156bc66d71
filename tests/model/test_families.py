"""Each family's exports against HF's own model: chained shards, chunks and single steps, windows exceeded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hyperlane.errors import ModelError
from hyperlane.model.check import TOLERANCE, difference_from_hf, differences_from_hf
from hyperlane.model.export import export
from hyperlane.model.families import Family
from hyperlane.model.source import resolve
from hyperlane.model.store import LayerStore
from hyperlane.quantization.int8 import Int8
from hyperlane.quantization.none import NoQuantization

COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 131,
    "max_position_embeddings": 128,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3_ROPE},
    "mistral": {"sliding_window": 8},
    "gpt_neox": {"num_key_value_heads": None, "rotary_pct": 0.25, "use_parallel_residual": True},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"head_dim": 24},
    "phi3": {"pad_token_id": 0, "sliding_window": 8},
    "gemma2": {"head_dim": 24, "query_pre_attn_scalar": 20, "sliding_window": 8, "final_logit_softcapping": 1.0},
    "gemma3_text": {"head_dim": 24, "query_pre_attn_scalar": 20, "sliding_window": 8, "sliding_window_pattern": 2},
    "olmo2": {},
}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_chained_shards_give_the_logits_of_hf(model_type: str) -> None:
    checkpoint = resolve("random", architecture=COMMON | FAMILIES[model_type] | {"model_type": model_type})
    assert checkpoint.family.checked
    assert difference_from_hf(checkpoint) < TOLERANCE


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_parameters_of_one_shape_stay_apart(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is traced with memory for weights, not with weights: an optimizer takes what is equal there for one."""
    monkeypatch.setattr(torch, "empty_like", torch.zeros_like)
    checkpoint = resolve("random", architecture=COMMON | FAMILIES[model_type] | {"model_type": model_type})
    assert difference_from_hf(checkpoint) < TOLERANCE


@pytest.mark.parametrize("model_type", FAMILIES)
def test_shards_in_int8_stay_near_hf_with_operators_and_without(model_type: str) -> None:
    """Wrongly fused, a part gives logits that are off by a half and more."""
    sizes = {"intermediate_size": 88, "vocab_size": 131}  # neither whole blocks nor whole tiles
    options = COMMON | FAMILIES[model_type] | sizes | {"model_type": model_type}
    if "final_logit_softcapping" in options:
        options["final_logit_softcapping"] = 30.0  # a small cap saturates, which magnifies differences
    checkpoint = resolve("random", architecture=options)
    fused, lowered = differences_from_hf(checkpoint, Int8(), (True, False))
    assert fused == pytest.approx(lowered, abs=1e-3)
    assert fused < 0.12


def test_an_unlisted_family_is_used_if_it_computes_what_hf_computes(tmp_path: Path) -> None:
    checkpoint = resolve("random", architecture=COMMON | {"model_type": "granite", "num_hidden_layers": 2})
    assert not checkpoint.family.checked
    manifest = export(checkpoint, LayerStore(tmp_path), "float32", NoQuantization())
    assert (manifest.family, manifest.exported) == ("granite", 4)


def test_an_unlisted_family_that_differs_is_refused_with_the_difference(tmp_path: Path) -> None:
    """Here the final norm is looked for in the wrong place, so that every layer applies it."""
    llama = resolve("random", architecture=COMMON | {"model_type": "llama"})
    wrong = replace(llama, family=Family(checked=False, norm="embed_tokens"))
    with pytest.raises(ModelError, match=r"llama is not among the tested families.* by \d.* of the largest"):
        export(wrong, LayerStore(tmp_path), "float32", NoQuantization())
    assert not list(tmp_path.rglob("*.json"))


def test_a_model_built_otherwise_is_refused(tmp_path: Path) -> None:
    gpt2 = resolve("random", architecture={"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1})
    with pytest.raises(ModelError, match="type gpt2 keep no 'layers'"):
        export(gpt2, LayerStore(tmp_path), "float32", NoQuantization())
