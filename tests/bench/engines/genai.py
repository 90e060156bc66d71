"""onnxruntime-genai with its own INT4 model, greedy."""

import sys
import time
from typing import Any

import numpy as np

from tests.bench.engines.engine import GENAI_MODEL, GENAI_PACKAGE, STREAM_PROMPT_TOKENS, MissingError


def load() -> "GenaiEngine":
    if not (GENAI_MODEL / "genai_config.json").is_file():
        raise MissingError(f"onnxruntime-genai's model is missing ({GENAI_MODEL}); run: make bench-peers")
    sys.path.insert(0, str(GENAI_PACKAGE))
    import onnxruntime_genai

    return GenaiEngine(onnxruntime_genai, onnxruntime_genai.Model(str(GENAI_MODEL)))


class GenaiEngine:
    def __init__(self, package: Any, model: Any) -> None:
        self._package, self._model = package, model

    def decode_per_s(self, streams: int, new_tokens: int) -> float:
        generator = self._prefilled(streams, STREAM_PROMPT_TOKENS, new_tokens)
        generator.generate_next_token()
        begun_s = time.perf_counter()
        for _ in range(new_tokens - 1):
            generator.generate_next_token()
        return streams * (new_tokens - 1) / (time.perf_counter() - begun_s)

    def first_token_s(self, prompt_tokens: int) -> float:
        begun_s = time.perf_counter()
        self._prefilled(1, prompt_tokens, 1).generate_next_token()
        return time.perf_counter() - begun_s

    def _prefilled(self, streams: int, prompt_tokens: int, new_tokens: int) -> Any:
        params, length = self._package.GeneratorParams(self._model), prompt_tokens + new_tokens
        params.set_search_options(batch_size=streams, max_length=length, min_length=length, do_sample=False)
        generator = self._package.Generator(self._model, params)
        ids = np.random.default_rng().integers(1000, 20000, (streams, prompt_tokens), np.int32)
        generator.append_tokens(ids)
        return generator
