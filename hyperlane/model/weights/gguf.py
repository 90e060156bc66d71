"""Tensors from a GGUF file, dequantized one at a time, named and permuted by transformers' own rules."""

from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, dequantize
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)


class Gguf:
    """Reads single tensors of a GGUF file as FP32."""

    def __init__(self, path: Path, config: PretrainedConfig, model: PreTrainedModel) -> None:
        """`model` has the parameter names to look for; its tensors are not used (meta ones will do)."""
        reader = GGUFReader(path)
        architecture = bytes(reader.fields["general.architecture"].parts[-1]).decode()
        self._processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict())
        self._names: dict[str, str] = get_gguf_hf_weights_map(model, self._processor)
        self._tensors: dict[str, Any] = {self._names.get(t.name, t.name): t for t in reader.tensors}

    def read(self, name: str) -> torch.Tensor:
        tensor = self._tensors[name]
        weights = dequantize(tensor.data, tensor.tensor_type)
        processed = self._processor.process(
            weights=weights,
            name=tensor.name,
            tensor_key_mapping=self._names,
            parsed_parameters={"tensors": {}},
        )
        return torch.from_numpy(processed.weights.copy())
