"""What a range of layers takes of a worker's memory: weights, KV cache and activations."""

from dataclasses import dataclass

from hyperlane.artifacts import ModelSpec

_ITEM_BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the chain must hold at once: sequences, positions of each, and the longest prefill chunk."""

    slots: int
    context: int
    prefill_chunk: int


def weight_bytes(model: ModelSpec, start: int, stop: int) -> int:
    """Layers start:stop, with the embedding for the first and the head for the last shard."""
    ends = (model.embedding_bytes if start == 0 else 0) + (model.head_bytes if stop == model.layers else 0)
    return sum(model.layer_bytes[start:stop]) + ends


def kv_bytes(model: ModelSpec, start: int, stop: int, workload: Workload) -> int:
    """Preallocated keys and values; each slot has one position more for the idle rows of a step."""
    return sum(model.kv_bytes_per_token[start:stop]) * workload.slots * (workload.context + 1)


def activation_bytes(model: ModelSpec, last: bool, workload: Workload) -> int:
    """An upper estimate of one step's workspace: the widest of a prefill chunk and a full decode step.

    A decoder layer holds about 12 rows of `hidden_size` (the residual, q, k, v, gate, up, down); attention scores
    of one layer take rows x context x heads (heads of 64 or wider); the head holds one logits row a slot.
    """
    rows = max(workload.prefill_chunk, workload.slots)
    heads = max(1, model.hidden_size // 64)
    scores = rows * (workload.context + 1) * heads * 4
    logits = workload.slots * model.vocab_size * 4 if last else 0
    return rows * 12 * model.hidden_size * _ITEM_BYTES[model.dtype] + scores + logits
