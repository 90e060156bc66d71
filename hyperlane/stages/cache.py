"""How the workers of a run hold keys and values."""

from collections.abc import Sequence

from hyperlane.artifacts import WorkerInfo
from hyperlane.config import Config, Dtype, KvCache
from hyperlane.worker.operators import OPERATORS_VERSION

_BITS = {KvCache.float32: 32, KvCache.float16: 16, KvCache.int8: 8}


def have_operators(workers: Sequence[WorkerInfo]) -> bool:
    """Whether all of them have our own operators, as this version uses them."""
    return all(worker.operators == OPERATORS_VERSION for worker in workers)


def kv_bits(config: Config, workers: Sequence[WorkerInfo]) -> int:
    """Bits of a cached number: what was asked for where all workers can, else the activations' own."""
    if config.model.dtype is Dtype.float16:
        return 16
    if not have_operators(workers):
        return 32
    chosen = config.generate.kv_cache
    if chosen is KvCache.auto:
        chosen = KvCache.float32 if config.quantization.name == "none" else KvCache.float16
    return _BITS[chosen]
