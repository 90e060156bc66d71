"""ONNX graphs of a model's parts, traced by torch.onnx.export from HF's own classes.

Attention becomes ONNX Runtime's fused GroupQueryAttention with the KV cache as input and output; all else is
as HF computes it. The weights' values are not looked at: a part holds empty memory, its graph HF's names.
"""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from hyperlane.errors import ModelError, one_line
from hyperlane.model.assemble import CANDIDATES
from hyperlane.model.families import Family
from hyperlane.model.simplify import simplify
from hyperlane.model.skeleton import layers_config, part_of, skeleton, with_memory

WEIGHT_PREFIX = "model."  # of the names of initializers that are parameters; the rest is HF's own name

_ATTENTION = "hyperlane"
_BATCH, _LENGTH, _KV = 2, 3, 7  # sizes to trace with: all different, none of them special


def trace_embedding(config: PretrainedConfig, dtype: torch.dtype) -> ir.Model:
    """input_ids int64 [B, S] -> hidden_out [B, S, D]."""
    ids = torch.zeros(_BATCH, _LENGTH, dtype=torch.int64)
    return _trace(_Embedding(skeleton(config, dtype)), {"input_ids": ids}, {"input_ids": "BS"}, ["hidden_out"])


def trace_layer(config: PretrainedConfig, family: Family, index: int, dtype: torch.dtype) -> ir.Model:
    """hidden_in [B, S, D], position_ids, the cache -> hidden_out [B, S, D], present_key and present_value.

    The parameters are named as those of layer 0.
    """
    layer = _Layer(config, family, index, dtype)
    attention = layers_config(config, [index])
    heads = getattr(attention, "num_key_value_heads", None) or attention.num_attention_heads
    head_dim = getattr(attention, "head_dim", None) or attention.hidden_size // attention.num_attention_heads
    past = torch.zeros(_BATCH, heads, _KV, head_dim, dtype=dtype)
    inputs = {
        "hidden_in": torch.zeros(_BATCH, _LENGTH, config.hidden_size, dtype=dtype),
        "position_ids": torch.zeros(_BATCH, _LENGTH, dtype=torch.int64),
        "past_key": past,
        "past_value": past.clone(),
        "seqlens_k": torch.zeros(_BATCH, dtype=torch.int32),
        "total_sequence_length": torch.tensor(_KV, dtype=torch.int32),
    }
    shapes = {
        "hidden_in": "BS",
        "position_ids": "BS",
        "past_key": "B-L",
        "past_value": "B-L",
        "seqlens_k": "B",
    }
    with _fused_rotary(layer.model) if family.rotates_halves else nullcontext():
        return _trace(layer, inputs, shapes, ["hidden_out", "present_key", "present_value"])


def trace_head(config: PretrainedConfig, family: Family, dtype: torch.dtype) -> ir.Model:
    """hidden_in [B, S, D], output_rows int64 [N] -> logits [N, V], candidates [N, K], logsumexp [N]."""
    model = skeleton(layers_config(config, [0]), dtype)
    part_of(model, family.layers)
    setattr(model.base_model, family.layers, nn.ModuleList())
    inputs = {
        "hidden_in": torch.zeros(_BATCH, _LENGTH, config.hidden_size, dtype=dtype),
        "output_rows": torch.arange(5),
    }
    outputs = ["logits", "candidate_ids", "candidate_logits", "logsumexp"]
    return _trace(_Head(model), inputs, {"hidden_in": "BS", "output_rows": "N"}, outputs)


class _Embedding(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = with_memory(model)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden: Tensor = self.model.get_input_embeddings()(input_ids)
        return hidden


class _Layer(nn.Module):
    """HF's base model with one layer and no final norm: it computes masks and rotary tables as HF does."""

    def __init__(self, config: PretrainedConfig, family: Family, index: int, dtype: torch.dtype) -> None:
        super().__init__()
        self._cache: tuple[Tensor, ...] = ()
        self._presents: list[tuple[Tensor, Tensor]] = []
        AttentionInterface.register(_ATTENTION, self._attend)
        self.model = with_memory(skeleton(layers_config(config, [index]), dtype, _ATTENTION))
        part_of(self.model, family.norm)
        setattr(self.model.base_model, family.norm, nn.Identity())

    def forward(
        self,
        hidden_in: Tensor,
        position_ids: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._cache = (past_key, past_value, seqlens_k, total_sequence_length)
        self._presents = []
        base = self.model.base_model
        hidden = base(inputs_embeds=hidden_in, position_ids=position_ids, use_cache=False).last_hidden_state
        if len(self._presents) != 1:
            raise ValueError(f"a layer of {base.config.model_type} calls attention {len(self._presents)} times")
        return hidden, *self._presents[0]

    def _attend(
        self,
        module: nn.Module,
        query_BHSD: Tensor,
        key_BGSD: Tensor,
        value_BGSD: Tensor,
        mask: Tensor | None,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """What HF's attention layers call; keys and values come with the rotary embedding applied."""
        B, H, S, D = query_BHSD.shape
        rows = [t.transpose(1, 2).reshape(B, S, -1) for t in (query_BHSD, key_BGSD, value_BGSD)]
        attributes: dict[str, Any] = {
            "num_heads": H,
            "kv_num_heads": key_BGSD.shape[1],
            "scale": float(scaling if scaling is not None else D**-0.5),
            "local_window_size": sliding_window or -1,
            "softcap": float(softcap or 0.0),
        }
        attended, key, value = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            (*rows, *self._cache),
            attributes,
            dtypes=(query_BHSD.dtype,) * 3,
            shapes=((B, S, H * D), self._cache[0].shape, self._cache[1].shape),
            version=1,
        )
        self._presents.append((key, value))
        return attended.reshape(B, S, H, D), None


class _Head(nn.Module):
    """HF's whole model with no layers: final norm, output head, and whatever it does to the logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = with_memory(model)

    def forward(self, hidden_in: Tensor, output_rows: Tensor) -> tuple[Tensor, ...]:
        rows_1ND = hidden_in.flatten(0, 1).index_select(0, output_rows).unsqueeze(0)
        logits_NV = self.model(inputs_embeds=rows_1ND, use_cache=False).logits.squeeze(0).float()
        candidates = logits_NV.topk(min(CANDIDATES, logits_NV.shape[1]))
        return logits_NV, candidates.indices, candidates.values, logits_NV.logsumexp(1)


@contextmanager
def _fused_rotary(model: PreTrainedModel) -> Iterator[None]:
    """Let HF's attention call ONNX Runtime's RotaryEmbedding, with the step's own rows as its tables."""
    module = sys.modules[type(model).__module__]
    original = module.apply_rotary_pos_emb
    module.apply_rotary_pos_emb = _rotate  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.apply_rotary_pos_emb = original  # type: ignore[attr-defined]


def _rotate(
    query_BHSD: Tensor, key_BGSD: Tensor, cos_BSR: Tensor, sin_BSR: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, Tensor]:
    """HF's apply_rotary_pos_emb for halves: element i is rotated with element i + R/2."""
    B, S, R = cos_BSR.shape
    tables = [table[..., : R // 2].reshape(B * S, R // 2) for table in (cos_BSR, sin_BSR)]
    rows_BS = torch.arange(B * S).reshape(B, S)
    rotated = []
    for states in (query_BHSD, key_BGSD):
        heads, head_dim = states.shape[1], states.shape[3]
        flat = states.transpose(1, 2).reshape(B, S, heads * head_dim)
        flat = torch.onnx.ops.symbolic(
            "com.microsoft::RotaryEmbedding",
            (flat, rows_BS, *tables),
            {"num_heads": heads, "rotary_embedding_dim": R if head_dim > R else 0},
            dtype=flat.dtype,
            shape=flat.shape,
            version=1,
        )
        rotated.append(flat.reshape(B, S, heads, head_dim).transpose(1, 2))
    return rotated[0], rotated[1]


def _trace(module: nn.Module, inputs: dict[str, Tensor], shapes: dict[str, str], outputs: list[str]) -> ir.Model:
    """Trace with the dimensions dynamic that have a letter in `shapes`; fold constants but never weights."""
    dynamic = {name: _dynamic_dimensions(shapes.get(name, "")) for name in inputs}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                kwargs=inputs,
                dynamo=True,
                dynamic_shapes=dynamic,
                optimize=False,
                verbose=False,
                input_names=list(inputs),
                output_names=outputs,
            )
            assert program is not None
            model: ir.Model = program.model
            _rename_buffers(model.graph, {name for name, _ in module.named_parameters(remove_duplicate=False)})
            optimize_ir(model, should_fold=_reads_no_weight, onnx_shape_inference=False)
            simplify(model.graph)
    except Exception as error:  # torch.export fails in many ways; all of them mean the same here
        raise ModelError(f"torch.onnx.export cannot trace this model: {one_line(error)[:300]}") from error
    return model


def _dynamic_dimensions(letters: str) -> dict[int, Any] | None:
    dimensions = {i: torch.export.Dim.DYNAMIC for i, letter in enumerate(letters) if letter != "-"}
    return dimensions or None


def _rename_buffers(graph: ir.Graph, parameters: set[str]) -> None:
    """Buffers (rotary frequencies, scales) are constants: their names must not look like weights'."""
    for value in [v for name, v in graph.initializers.items() if name not in parameters]:
        value.name = f"constant.{value.name}"


def _reads_no_weight(node: ir.Node) -> bool | None:
    weights = (v for v in node.inputs if v is not None and (v.name or "").startswith(WEIGHT_PREFIX))
    return False if any(v.is_initializer() for v in weights) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own deprecations and of packages that are not needed here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
