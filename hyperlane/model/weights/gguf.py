"""Tensors from a GGUF file, one at a time, named and permuted by transformers' own rules: dequantized, or in blocks."""

import shutil
import tempfile
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, dequantize
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from hyperlane.errors import ModelError, one_line
from hyperlane.model.skeleton import skeleton
from hyperlane.quantization import Form
from hyperlane.quantization.reference import BLOCK, Blocks

_FORMS = {
    GGMLQuantizationType.Q4_0: Form(bits=4, minima=False),
    GGMLQuantizationType.Q4_1: Form(bits=4, minima=True),
    GGMLQuantizationType.Q5_0: Form(bits=8, minima=False),
    GGMLQuantizationType.Q5_1: Form(bits=8, minima=True),
    GGMLQuantizationType.Q8_0: Form(bits=8, minima=False),
}


class Gguf:
    """Reads single tensors of a GGUF file as FP32; the file is opened by the first one."""

    def __init__(self, path: Path, config: PretrainedConfig) -> None:
        self._path, self._config = path, config

    def read(self, name: str) -> torch.Tensor:
        tensor = self._tensors[name]
        return torch.from_numpy(self._processed(name, dequantize(tensor.data, tensor.tensor_type)).copy())

    def form(self, name: str) -> Form | None:
        tensor = self._tensors[name]
        return _FORMS.get(tensor.tensor_type) if len(tensor.shape) == 2 else None

    def blocks(self, name: str) -> Blocks | None:
        """None too where transformers does more to the tensor than move whole rows."""
        if self.form(name) is None:
            return None
        tensor = self._tensors[name]
        blocks = unpacked(tensor.data, tensor.tensor_type)
        numbers = np.arange(len(blocks.codes_NK), dtype=np.float32)[:, None]  # exact up to 2^24 rows
        moved = self._processed(name, np.broadcast_to(numbers, blocks.codes_NK.shape).copy())
        rows = moved[:, 0].astype(np.int64)
        blocks = Blocks(
            bits=blocks.bits,
            codes_NK=blocks.codes_NK[rows],
            scales_NB=blocks.scales_NB[rows],
            minima_NB=None if blocks.minima_NB is None else blocks.minima_NB[rows],
        )
        return blocks if np.array_equal(blocks.values(), self.read(name).numpy()) else None

    def _processed(self, name: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        processed = self._processor.process(
            weights=weights,
            name=self._tensors[name].name,
            tensor_key_mapping=self._names,
            parsed_parameters={"tensors": {}},
        )
        values: NDArray[np.float32] = processed.weights
        return values

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


def unpacked(data: NDArray[np.uint8], kind: GGMLQuantizationType) -> Blocks:
    """Codes, scales and minima of ggml's blocks of 32: FP16 scale, FP16 minimum, fifth bits, nibbles or bytes."""
    form, N = _FORMS[kind], len(data)
    halves = 2 if form.minima else 1
    blocks = data.reshape(N, -1, GGML_QUANT_SIZES[kind][1])
    scales = np.ascontiguousarray(blocks[:, :, : 2 * halves]).view(np.float16)
    rest = blocks[:, :, 2 * halves :]
    codes: NDArray[np.uint8]
    if kind is GGMLQuantizationType.Q8_0:
        codes = rest + np.uint8(128)  # wraps: two's complement to the distance from -128
    else:
        nibbles = rest[:, :, -BLOCK // 2 :]
        codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=2)
        if kind in (GGMLQuantizationType.Q5_0, GGMLQuantizationType.Q5_1):
            codes |= np.unpackbits(rest[:, :, :4], axis=2, bitorder="little") << 4
        if kind is GGMLQuantizationType.Q5_0:
            codes += 128 - 16
    return Blocks(
        bits=form.bits,
        codes_NK=codes.reshape(N, -1).astype(np.uint8, copy=False),
        scales_NB=scales[:, :, 0],
        minima_NB=scales[:, :, 1] if form.minima else None,
    )
