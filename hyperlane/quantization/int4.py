"""Weights as INT4 in blocks of 32 with a minimum each: half of INT8 again, and less exact, most so on small models."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from hyperlane.quantization import Form, Parameter, Role
from hyperlane.quantization.int8 import FORM as INT8
from hyperlane.quantization.int8 import round_to_int8
from hyperlane.quantization.reference import BLOCK, Blocks

FORM = Form(bits=4, minima=True)
SYMMETRIC = Form(bits=4, minima=False)
TRIALS = np.linspace(0.8, 1.0, 9, dtype=np.float32)  # of a symmetric block's scale, by its largest value
ROWS = 1024  # quantized at a time
ROUNDS = 4  # of fitting scale and minimum to the codes, and the codes to them


class Method(Enum):
    kquant = "kquant"  # scales searched for by weighted error (ONNX Runtime's k-quant), then fitted
    rtn = "rtn"  # round to nearest between a block's least and largest value


@dataclass(kw_only=True, slots=True)
class Int4:
    """`embedding`: the vocabulary's rows, as INT8, since the head that they often share decides near ties.

    minima: false keeps blocks symmetric, as GPUs have fast products for; less exact.
    """

    method: Method = Method.kquant
    embedding: bool = True
    minima: bool = True

    @property
    def name(self) -> str:
        name = f"int4-{self.method.value}" + ("" if self.embedding else "-fullembedding")
        return name if self.minima else f"{name}-symmetric"

    def form(self, role: Role, source: Form | None) -> Form | None:
        if role == "gather":
            return INT8 if self.embedding else None
        return FORM if self.minima else SYMMETRIC

    def pack(self, form: Form, parameter: Parameter) -> Blocks:
        values_NK = parameter.values()
        if form == INT8:
            return round_to_int8(values_NK)
        if form == SYMMETRIC:
            return _symmetric(values_NK)
        parts = [_pack(values_NK[at : at + ROWS], self.method) for at in range(0, len(values_NK), ROWS)]
        minima = [part.minima_NB for part in parts if part.minima_NB is not None]
        return Blocks(
            bits=4,
            codes_NK=np.concatenate([part.codes_NK for part in parts]),
            scales_NB=np.concatenate([part.scales_NB for part in parts]),
            minima_NB=np.concatenate(minima),
        )


def _pack(weight_NK: NDArray[np.float32], method: Method) -> Blocks:
    N, K = weight_NK.shape
    padded = np.pad(weight_NK, ((0, 0), (0, -K % BLOCK)), "edge")
    blocks = padded.reshape(-1, BLOCK)
    low, high = blocks.min(1), blocks.max(1)
    scales, minima = ((high - low) / 15).astype(np.float16), low.astype(np.float16)
    if method is Method.kquant:
        codes = _searched(blocks)
        for _ in range(ROUNDS):
            scales, minima = _fitted(blocks, codes)
            codes = _rounded(blocks, scales, minima)
    codes = _rounded(blocks, scales, minima)
    return Blocks(
        bits=4,
        codes_NK=codes.astype(np.uint8).reshape(N, -1)[:, :K],
        scales_NB=scales.reshape(N, -1),
        minima_NB=minima.reshape(N, -1),
    )


def _symmetric(weight_NK: NDArray[np.float32]) -> Blocks:
    """The value of largest magnitude becomes -8, times the factor that gives the least squared error."""
    N, K = weight_NK.shape
    blocks = np.pad(weight_NK, ((0, 0), (0, -K % BLOCK))).reshape(-1, BLOCK)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)[:, 0]
    best, codes = np.full(len(blocks), np.inf, np.float32), np.zeros(blocks.shape, np.float32)
    scales = np.zeros(len(blocks), np.float16)
    for factor in TRIALS:
        trial = (extreme * factor / np.float32(-8)).astype(np.float16)
        inverse = np.divide(1, trial, out=np.zeros(len(blocks), np.float32), where=trial != 0)
        rounded = np.clip(np.rint(blocks * inverse[:, None]), -8, 7)
        error = ((rounded * trial.astype(np.float32)[:, None] - blocks) ** 2).sum(1)
        better = error < best
        best, scales = np.where(better, error, best), np.where(better, trial, scales)
        codes[better] = rounded[better]
    unsigned = (codes + 8).astype(np.uint8).reshape(N, -1)[:, :K]
    return Blocks(bits=4, codes_NK=unsigned, scales_NB=scales.reshape(N, -1))


def _searched(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Codes of each block by ONNX Runtime's port of llama.cpp's k-quant search."""
    # Imported here, as only an export needs it.
    from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

    with np.errstate(all="ignore"):  # it divides by the spread of constant blocks
        codes, _, _ = quant_tensor_k_quant_cpu(blocks, num_bits=4, group_size=BLOCK)
    result: NDArray[np.float32] = np.nan_to_num(codes, nan=0.0).astype(np.float32)
    return result


def _fitted(blocks: NDArray[np.float32], codes: NDArray[np.float32]) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Scale and minimum of each block by least squares; the block's own minimum where all codes are the same."""
    mean_code, mean = codes.mean(1), blocks.mean(1)
    spread = ((codes - mean_code[:, None]) ** 2).sum(1)
    together = ((codes - mean_code[:, None]) * (blocks - mean[:, None])).sum(1)
    scales = np.divide(together, spread, out=np.zeros_like(mean), where=spread > 0).astype(np.float16)
    minima = (mean - scales.astype(np.float32) * mean_code).astype(np.float16)
    return scales, minima


def _rounded(
    blocks: NDArray[np.float32], scales: NDArray[np.float16], minima: NDArray[np.float16]
) -> NDArray[np.float32]:
    inverse = np.divide(1, scales, out=np.zeros(scales.shape, np.float32), where=scales != 0)
    codes: NDArray[np.float32] = np.clip(
        np.rint((blocks - minima.astype(np.float32)[:, None]) * inverse[:, None]), 0, 15
    )
    return codes
