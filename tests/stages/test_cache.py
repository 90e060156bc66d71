"""How keys and values are held: what was asked for, where all workers can."""

from dataclasses import replace

import pytest

from hyperlane.compose import compose
from hyperlane.stages.cache import kv_bits, unmet
from hyperlane.worker.operators import OPERATORS_VERSION
from tests.partition.test_partition import cluster

OWN = tuple(replace(worker, operators=OPERATORS_VERSION) for worker in cluster(500, 500).workers)
MIXED = (OWN[0], replace(OWN[1], operators=0))


@pytest.mark.parametrize(
    ("overrides", "bits"),
    [
        (["quantization=none"], 32),
        (["quantization=int8"], 16),
        (["quantization=int8", "generate.kv_cache=int8"], 8),
        (["quantization=none", "generate.kv_cache=float16"], 16),
        (["model.dtype=float16", "generate.kv_cache=int8"], 16),
    ],
)
def test_bits_are_those_asked_for(overrides: list[str], bits: int) -> None:
    assert kv_bits(compose("tiny", overrides), OWN) == bits


def test_one_worker_without_operators_is_named() -> None:
    config = compose("tiny", ["quantization=int8", "generate.kv_cache=int8"])
    assert unmet(config, OWN, kv_bits(config, OWN)) is None
    bits = kv_bits(config, MIXED)
    assert bits == 32
    said = "keys and values are held in 32 bits, not generate.kv_cache=int8: w1 cannot"
    assert unmet(config, MIXED, bits) == said
