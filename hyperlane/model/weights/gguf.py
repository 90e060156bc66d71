"""Tensors from a GGUF file, dequantized one at a time, named and permuted by transformers' own rules."""

import shutil
import tempfile
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, dequantize
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from hyperlane.errors import ModelError, one_line
from hyperlane.model.skeleton import skeleton


class Gguf:
    """Reads single tensors of a GGUF file as FP32; the file is opened by the first one."""

    def __init__(self, path: Path, config: PretrainedConfig) -> None:
        self._path, self._config = path, config

    def read(self, name: str) -> torch.Tensor:
        tensor = self._tensors[name]
        weights = dequantize(tensor.data, tensor.tensor_type)
        processed = self._processor.process(
            weights=weights, name=tensor.name, tensor_key_mapping=self._names, parsed_parameters={"tensors": {}}
        )
        return torch.from_numpy(processed.weights.copy())

    @cached_property
    def _reader(self) -> Any:
        try:
            return GGUFReader(self._path)
        except Exception as error:  # whatever its parser meets in a truncated file
            raise ModelError(f"cannot read the weights in {self._path}: {one_line(error)}") from error

    @cached_property
    def _processor(self) -> TensorProcessor:
        architecture = bytes(self._reader.fields["general.architecture"].parts[-1]).decode()
        return TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=self._config.to_dict())

    @cached_property
    def _names(self) -> dict[str, str]:
        """HF's parameter names by GGUF's tensor names."""
        names: dict[str, str] = get_gguf_hf_weights_map(skeleton(self._config), self._processor)
        return names

    @cached_property
    def _tensors(self) -> dict[str, Any]:
        return {self._names.get(tensor.name, tensor.name): tensor for tensor in self._reader.tensors}


def parsed_folder(path: Path, folder: Path) -> Path:
    """`folder` with config and tokenizer of a GGUF file as HF stores them, written if it is not there yet.

    Reading the two from the GGUF file takes seconds each time.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for reader in (AutoConfig, AutoTokenizer):
                    reader.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(temporary)
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder
