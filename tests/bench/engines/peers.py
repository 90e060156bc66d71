"""The table of peers: what the command line calls them, and what rows call them."""

from contextlib import AbstractContextManager

from tests.bench.engines.engine import Engine
from tests.bench.engines.llama_rpc import NAME, LlamaRpc

PEERS = {"llama": NAME, "genai": "onnxruntime-genai INT4", "transformers": "transformers FP32"}


def open_peer(peer: str) -> AbstractContextManager[Engine]:
    """Raises MissingError when entered."""
    if peer == "llama":
        return LlamaRpc.open()
    raise NotImplementedError(peer)
