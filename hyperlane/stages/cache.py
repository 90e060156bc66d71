"""How the workers of a run hold keys and values."""

from collections.abc import Sequence

from hyperlane.artifacts import WorkerInfo
from hyperlane.config import Config, Dtype, KvCache
from hyperlane.stages.kinds import has_operators, have_operators

_BITS = {KvCache.float32: 32, KvCache.float16: 16, KvCache.int8: 8}


def kv_bits(config: Config, workers: Sequence[WorkerInfo]) -> int:
    """Bits of a cached number: what was asked for where all workers can, else the activations' own."""
    if config.model.dtype is Dtype.float16:
        return 16
    if not have_operators(workers):
        return 32
    return _BITS[_chosen(config)]


def unmet(config: Config, workers: Sequence[WorkerInfo], bits: int) -> str | None:
    """Why caches are not as asked for; None where they are."""
    asked = config.generate.kv_cache
    if asked is KvCache.auto or _BITS[asked] == bits:
        return None
    without = [worker.name for worker in workers if not has_operators(worker)]
    why = f"{', '.join(without)} cannot" if without else f"model.dtype={config.model.dtype.value} decides"
    return f"keys and values are held in {bits} bits, not generate.kv_cache={asked.value}: {why}"


def _chosen(config: Config) -> KvCache:
    if config.generate.kv_cache is not KvCache.auto:
        return config.generate.kv_cache
    return KvCache.float32 if config.quantization.name == "none" else KvCache.float16
