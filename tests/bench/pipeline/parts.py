"""The parts of a model of some shape, without weights: their graphs, and what a weight file holds.

`python -m tests.bench.pipeline.parts FOLDER [NAME ...]` traces them, which needs torch and transformers as the project
pins them; `fill` makes weights up for them wherever a bench runs, in seconds and without torch.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.artifacts import Manifest, Part
from hyperlane.model.store import LayerStore

LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "vocab_size": 32000}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "7b": LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "13b": LLAMA
    | {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
    },
    "small": LLAMA
    | {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 4096,
    },
}
NAMES = ("embedding", "layer", "head")
ALIGNMENT = 64
CHUNK = 1 << 24  # values made up at a time


@dataclass(frozen=True, slots=True)
class Variant:
    """A shape, how its weights are stored, and the type of its activations."""

    shape: str
    weights: str  # "fp16", "fp32" or "int4"

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.weights}"

    @property
    def dtype(self) -> str:
        return "float32" if self.weights == "fp32" else "float16"


VARIANTS = (
    Variant("7b", "fp16"),
    Variant("7b", "int4"),
    Variant("13b", "fp16"),
    Variant("small", "fp16"),
    Variant("small", "fp32"),
    Variant("small", "int4"),
)


def fill(folder: Path, variant: Variant, store: LayerStore) -> Manifest:
    """The model in the store, all layers alike. Weights follow from the names alone, as FP16 holds them."""
    described = json.loads((folder / f"{variant.name}.json").read_text())
    parts = {}
    for name in NAMES:
        graph = store.put((folder / f"{variant.name}-{name}.onnx").read_bytes())
        parts[name] = Part(name=name, graph=graph, weights=store.put(_content(name, described[name])))
    shape = SHAPES[variant.shape]
    layers = [
        Part(name=f"layer.{i}", graph=parts["layer"].graph, weights=parts["layer"].weights)
        for i in range(shape["num_hidden_layers"])
    ]
    return Manifest(
        key=f"bench-{variant.name}",
        family="llama",
        dtype=variant.dtype,
        quantization=variant.weights,
        layers=len(layers),
        hidden_size=shape["hidden_size"],
        vocab_size=shape["vocab_size"],
        parts=(parts["embedding"], *layers, parts["head"]),
    )


def _content(part: str, arrays: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    for index, array in enumerate(arrays):
        generator = np.random.default_rng([NAMES.index(part), index])
        shape, kind = tuple(array["shape"]), np.dtype(array["dtype"])
        count, written = int(np.prod(shape)), 0
        while written < count:
            size = min(CHUNK, count - written)
            yield _values(generator, array["suffix"], shape, size).astype(kind).tobytes()
            written += size
        yield bytes(-count * kind.itemsize % ALIGNMENT)


def _values(generator: np.random.Generator, suffix: str, shape: Sequence[int], size: int) -> NDArray[Any]:
    if suffix == "codes":
        return generator.integers(0, 256, size, np.uint8)
    if suffix == "scales":  # of codes whose deviation is 4.6: as FP16 weights have it
        return np.full(size, 64**-0.5 / 4.6 / 8, np.float16)
    noise = generator.standard_normal(size, np.float32)
    values = 1 + 0.1 * noise if len(shape) == 1 else noise * max(shape[0], 1) ** -0.5
    return values.astype(np.float16)


def trace(folder: Path, variant: Variant, store: LayerStore) -> None:
    """Write a variant's graphs and layouts."""
    from hyperlane.model.export import _PartWriter
    from hyperlane.model.source import resolve
    from hyperlane.quantization.int4 import Int4, Method
    from hyperlane.quantization.none import NoQuantization

    quantization = Int4(method=Method.rtn, minima=False) if variant.weights == "int4" else NoQuantization()
    checkpoint = resolve("random", None, dict(SHAPES[variant.shape]), 0, store)
    writer = _PartWriter(checkpoint, store, variant.dtype, quantization)
    layout = {}
    for name in NAMES:
        template, _ = writer.template("layer.0" if name == "layer" else name)
        (folder / f"{variant.name}-{name}.onnx").write_bytes(template.graph)
        layout[name] = [
            {"suffix": array.suffix.strip("."), "shape": list(array.shape), "dtype": str(array.dtype)}
            for weight in template.weights
            for array in weight.arrays
        ]
    (folder / f"{variant.name}.json").write_text(json.dumps(layout))


def main(argv: Sequence[str]) -> None:
    folder, names = Path(argv[0]), set(argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for variant in VARIANTS:
        if not names or variant.name in names:
            trace(folder, variant, LayerStore(folder / "store"))


if __name__ == "__main__":
    main(sys.argv[1:])
