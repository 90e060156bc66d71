"""HF's own model classes without their weights: on the meta device, whole or cut to one layer."""

import copy
import json
from collections.abc import Hashable, Sequence

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from hyperlane.errors import ModelError, one_line
from hyperlane.model.families import Family

_SMALL = 1 << 16  # elements: beyond any vector of a model, and far beyond what optimizers compare (1,024)


def skeleton(config: PretrainedConfig, dtype: torch.dtype = torch.float32, attention: str = "eager") -> PreTrainedModel:
    """The model of `config` with its parameters on the meta device and real buffers (rotary frequencies)."""
    try:
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    except Exception as error:  # not a language model, or fields that do not fit together
        raise ModelError(f"cannot build a {config.model_type} model: {one_line(error)}") from error
    return model.eval()


def layers_config(config: PretrainedConfig, indices: Sequence[int]) -> PretrainedConfig:
    """`config` with these layers only: each list that has an entry a layer keeps theirs."""
    layers, config = config.num_hidden_layers, copy.deepcopy(config)
    for name, value in vars(config).items():
        if isinstance(value, (list, tuple)) and len(value) == layers:
            setattr(config, name, [value[i] for i in indices])
    config.num_hidden_layers = len(indices)
    return config


def layer_kinds(config: PretrainedConfig, family: Family) -> list[Hashable]:
    """What distinguishes each layer but its weights: those of one kind have the same graph."""
    return [
        (
            json.dumps(layers_config(config, [i]).to_dict(), sort_keys=True, default=str),
            tuple((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters()),
        )
        for i, layer in enumerate(part_of(skeleton(config), family.layers).children())
    ]


def part_of(model: PreTrainedModel, name: str) -> nn.Module:
    """The part of HF's base model that a family says is there; ModelError if it is not."""
    part = getattr(model.base_model, name, None)
    if not isinstance(part, nn.Module):
        kind = model.config.model_type
        raise ModelError(f"models of type {kind} keep no {name!r} where the supported families do")
    return part


def with_memory(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, its meta parameters replaced by memory. Large ones are not written to, so they cost nothing.

    No two small ones are equal: optimizers take equal constants for one, and norms would share what is theirs.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter.is_meta:
                memory = torch.empty_like(parameter, device="cpu")
                if memory.numel() <= _SMALL:
                    memory.fill_(0.5 + len(made))
                setattr(module, name, made.setdefault(parameter, nn.Parameter(memory, requires_grad=False)))
    return model


def parameter_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
