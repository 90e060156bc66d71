"""A GGUF file's own blocks, and what they are worth."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quantize
from gguf import dequantize as dequantized

from hyperlane.model.source import Checkpoint, resolve
from hyperlane.model.weights.gguf import unpacked
from hyperlane.quantization import Form
from tests.fixtures_model import SMOLLM2

KINDS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


@pytest.fixture(scope="module")
def smollm2_file() -> Checkpoint:
    return resolve(SMOLLM2)


@pytest.mark.parametrize("name", KINDS)
def test_unpacked_blocks_have_the_values_that_gguf_reads(name: str) -> None:
    kind = GGMLQuantizationType[name]
    data = quantize(np.random.default_rng(0).standard_normal((6, 96), np.float32), kind)
    np.testing.assert_array_equal(unpacked(data, kind).values(), dequantized(data, kind))


@pytest.mark.parametrize("projection", ["q_proj", "k_proj", "v_proj"])
def test_rows_that_transformers_moves_are_moved(smollm2_file: Checkpoint, projection: str) -> None:
    parameter = smollm2_file.parameter(f"model.layers.3.self_attn.{projection}.weight")
    blocks = parameter.blocks()
    assert parameter.form() == Form(bits=4, minima=True)
    assert blocks is not None
    np.testing.assert_array_equal(blocks.values(), parameter.values())


def test_the_head_is_the_embedding_and_norms_have_no_blocks(smollm2_file: Checkpoint) -> None:
    assert smollm2_file.parameter("lm_head.weight").form() == Form(bits=8, minima=False)
    assert smollm2_file.parameter("model.norm.weight").form() is None
    assert smollm2_file.parameter("model.norm.weight").blocks() is None
