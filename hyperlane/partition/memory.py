"""What a range of layers takes of a worker's memory: weights, KV cache and activations."""

from dataclasses import dataclass

from hyperlane.artifacts import ModelSpec
from hyperlane.generate.chunks import chunk_tokens

_ITEM_BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the chain must hold at once, and what it is to be quick at."""

    slots: int  # sequences
    context: int  # positions of each
    prefill_chunk: int  # the longest
    lanes: int = 0  # 0: one a worker
    prompt_tokens: int = 256  # of the prompt whose first token counts
    codecs: tuple[str, ...] = ("raw",)  # that a link may use
    scores: bool = True  # a worker may hold all attention scores of a layer: graphs without our own attention

    @property
    def past(self) -> int:
        """Positions that a typical step finds in the cache."""
        return min(self.context // 2, self.prompt_tokens + 64)

    def lanes_of(self, hops: int) -> int:
        return min(self.lanes or hops, self.slots)

    def lane_rows(self, hops: int) -> int:
        """Rows of a full lane's decode step."""
        return -(-self.slots // self.lanes_of(hops))

    def chunk_of(self, hops: int) -> int:
        """Tokens of the pieces in which the prompt crosses the chain."""
        return min(self.prompt_tokens, chunk_tokens(self.prompt_tokens, hops, self.prefill_chunk))

    def chunks_of(self, hops: int) -> int:
        return -(-self.prompt_tokens // self.chunk_of(hops))


def weight_bytes(model: ModelSpec, start: int, stop: int) -> int:
    """Layers start:stop, with the embedding for the first and the head for the last shard."""
    ends = (model.embedding_bytes if start == 0 else 0) + (model.head_bytes if stop == model.layers else 0)
    return sum(model.layer_bytes[start:stop]) + ends


def kv_bytes(model: ModelSpec, start: int, stop: int, workload: Workload) -> int:
    """Preallocated keys and values; a position more a slot, which graphs without our attention need for idle rows."""
    return sum(model.kv_bytes_per_token[start:stop]) * workload.slots * (workload.context + 1)


def activation_bytes(model: ModelSpec, last: bool, workload: Workload) -> int:
    """An upper estimate of one step's workspace: the widest of a prefill chunk and a full decode step.

    A decoder layer holds about 12 rows of `hidden_size` (the residual, q, k, v, gate, up, down); the attention scores
    of one layer, where they are held, take rows x context x heads (heads of 64 or wider); the head holds one logits
    row a slot.
    """
    rows = max(workload.prefill_chunk, workload.slots)
    heads = max(1, model.hidden_size // 64)
    scores = rows * (workload.context + 1) * heads * 4 if workload.scores else 0
    logits = workload.slots * model.vocab_size * 4 if last else 0
    return rows * 12 * model.hidden_size * _ITEM_BYTES[model.dtype] + scores + logits
