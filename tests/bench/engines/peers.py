"""The table of peers: what the command line calls them, and what rows call them."""

from contextlib import AbstractContextManager

from tests.bench.engines.child import ChildEngine
from tests.bench.engines.engine import Engine
from tests.bench.engines.llama_rpc import NAME, LlamaRpc

PEERS = {
    "llama": NAME,
    "genai": "onnxruntime-genai INT4, one process of 2 threads",
    "hf": "transformers FP32, one process of 2 threads",
}


def open_peer(peer: str) -> AbstractContextManager[Engine]:
    """Raises MissingError when entered."""
    return LlamaRpc.open() if peer == "llama" else ChildEngine.open(PEERS[peer], peer)
