"""What the export stage writes: a model's files by layer."""

from dataclasses import dataclass

from hyperlane.artifacts.written import measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of a layer store, named by the SHA-256 of its content (hex)."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One exported piece of a model ("embedding", "layer.0" ..., "head"): its graph, and its weights."""

    name: str
    graph: Blob
    weights: Blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything of one model in the layer store, under one set of export options."""

    key: str  # digest of the weights' identity and the export options
    family: str
    dtype: str
    quantization: str
    layers: int
    hidden_size: int
    vocab_size: int
    parts: tuple[Part, ...]  # in chain order: embedding, layer.0 ... layer.N-1, head
    exported: int = measured(default=0)  # how many parts this run had to export; 0 when the store held all
