"""HF's own model classes without their weights: on the meta device, whole or cut to one layer."""

import copy

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from hyperlane.errors import ModelError, one_line


def skeleton(
    config: PretrainedConfig, dtype: torch.dtype = torch.float32, attention: str = "eager"
) -> PreTrainedModel:
    """The model of `config` with its parameters on the meta device and real buffers (rotary frequencies)."""
    try:
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    except Exception as error:  # not a language model, or fields that do not fit together
        raise ModelError(f"cannot build a {config.model_type} model: {one_line(error)}") from error
    return model.eval()


def one_layer_config(config: PretrainedConfig, index: int) -> PretrainedConfig:
    """`config` with layer `index` as its only one: each list with an entry a layer keeps that entry."""
    layers, config = config.num_hidden_layers, copy.deepcopy(config)
    for name, value in vars(config).items():
        if isinstance(value, (list, tuple)) and len(value) == layers:
            setattr(config, name, [value[index]])
    config.num_hidden_layers = 1
    return config


def with_memory(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, its meta parameters replaced by memory that is not written to, so it costs nothing."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter.is_meta:
                empty = nn.Parameter(torch.empty_like(parameter, device="cpu"), requires_grad=False)
                setattr(module, name, made.setdefault(parameter, empty))
    return model


def parameter_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
