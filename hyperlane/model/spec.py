"""What planning needs to know of a model, read from its configuration alone."""

from collections.abc import Mapping

import numpy as np
from torch import nn

from hyperlane.artifacts import ModelSpec
from hyperlane.model.attention import position_bytes
from hyperlane.model.graph import stored, stored_bytes
from hyperlane.model.skeleton import part_of, skeleton
from hyperlane.model.source import Checkpoint
from hyperlane.quantization import Quantization, Role


def read_spec(checkpoint: Checkpoint, dtype: str, quantization: Quantization, kv_bits: int) -> ModelSpec:
    """Sizes: weights as stored under `quantization`, activations in `dtype` ("float32" or "float16"), caches of
    `kv_bits` a number.
    """
    config, family = checkpoint.config, checkpoint.family
    model = skeleton(config)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    layers = list(part_of(model, family.layers).children())
    norm = part_of(model, family.norm)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def size(module: nn.Module) -> int:
        return _stored_bytes(module, names, checkpoint, np.dtype(dtype), quantization)

    return ModelSpec(
        source=checkpoint.source,
        family=config.model_type,
        layers=len(layers),
        hidden_size=config.hidden_size,
        vocab_size=head.weight.shape[0],
        max_positions=config.max_position_embeddings,
        dtype=dtype,
        embedding_bytes=size(embedding),
        layer_bytes=tuple(size(layer) for layer in layers),
        head_bytes=size(norm) + size(head),
        kv_bytes_per_token=(2 * heads * position_bytes(head_dim, kv_bits),) * len(layers),
        kv_bits=kv_bits,
        layer_products=tuple(_products(layer) for layer in layers),
        head_products=_products(head),
        quantization=quantization.name,
    )


def _products(module: nn.Module) -> int:
    """Multiplications that a row takes with the module's matrices."""
    return sum(child.weight.numel() for child in module.modules() if isinstance(child, nn.Linear))


def _stored_bytes(
    module: nn.Module,
    names: Mapping[int, str],
    checkpoint: Checkpoint,
    dtype: "np.dtype[np.floating]",
    quantization: Quantization,
) -> int:
    total = 0
    for child in module.modules():
        role: Role | None = "matmul" if isinstance(child, nn.Linear) else None
        role = "gather" if isinstance(child, nn.Embedding) else role
        for parameter in child.parameters(recurse=False):
            used = role if parameter.dim() == 2 else None
            source = checkpoint.parameter(names[id(parameter)]).form() if used else None
            total += stored_bytes(stored(used, tuple(parameter.shape), dtype, quantization, source))
    return total
