"""Clusters and models of real sizes, as machines of known rates."""

import numpy as np

from hyperlane.artifacts import Cluster, LinkInfo, ModelSpec, WorkerInfo
from hyperlane.partition.rates import speed_of_rates

WEIGHTS = "int4-b32-a4"
MACHINES = (
    (80e9, 2.0e12, 400e12),
    (48e9, 0.8e12, 150e12),
    (24e9, 0.7e12, 80e12),
    (64e9, 0.2e12, 5e12),
    (16e9, 6e10, 8e11),
)


def shapes(layers: int, hidden: int, layer_bytes: float) -> ModelSpec:
    """A model of `layers` equal layers with INT4 weights and 1,024 values of keys and values a layer."""
    return ModelSpec(
        source=f"{layers}x{hidden}",
        family="llama",
        layers=layers,
        hidden_size=hidden,
        vocab_size=128256,
        max_positions=131072,
        dtype="float16",
        embedding_bytes=600_000_000,
        layer_bytes=(int(layer_bytes),) * layers,
        head_bytes=600_000_000,
        kv_bytes_per_token=(4096,) * layers,
        quantization=WEIGHTS,
    )


def racks(rng: np.random.Generator, workers: int, memory_scale: float = 1.0) -> Cluster:
    """GPUs and CPUs of five kinds in racks of 16: 10 Gbit/s within one, 1 Gbit/s between."""
    infos = []
    for index in range(workers):
        memory, bytes_per_s, flops_per_s = MACHINES[rng.integers(len(MACHINES))]
        spread, size = np.exp(rng.normal(0, 0.05)), int(memory * memory_scale)
        infos.append(
            WorkerInfo(
                name=f"w{index:04}",
                device="cpu",
                memory_total_bytes=size,
                memory_free_bytes=int(size * rng.uniform(0.8, 1)),
                control_address="",
                data_addresses=(),
                latency_s=2e-4,
                speeds=(speed_of_rates(WEIGHTS, bytes_per_s * spread, flops_per_s * spread, 3e-4),),
                site=f"rack{index // 16}",
            )
        )
    names = sorted({info.site for info in infos})
    links = tuple(
        LinkInfo(
            source=a,
            target=b,
            latency_s=5e-5 if a == b else 3e-4 * rng.uniform(0.8, 1.5),
            bytes_per_s=1.17e9 if a == b else 1.17e8,
        )
        for a in names
        for b in names
    )
    return Cluster(workers=tuple(infos), links=links)
