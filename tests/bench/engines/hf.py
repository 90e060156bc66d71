"""Hugging Face transformers, FP32: forward passes with its cache, greedy."""

import time

import torch
from transformers import AutoModelForCausalLM

from tests.bench.engines.engine import STREAM_PROMPT_TOKENS, THREADS, gguf


def load() -> "HfEngine":
    torch.set_num_threads(THREADS)
    file = gguf()
    return HfEngine(AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval())


class HfEngine:
    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    @torch.inference_mode()
    def decode_per_s(self, streams: int, new_tokens: int) -> float:
        ids = torch.randint(1000, 20000, (streams, STREAM_PROMPT_TOKENS))
        found = self._model(input_ids=ids, use_cache=True, logits_to_keep=1)
        begun_s = time.perf_counter()
        for _ in range(new_tokens - 1):
            ids = found.logits[:, -1:].argmax(dim=-1)
            found = self._model(input_ids=ids, past_key_values=found.past_key_values, use_cache=True)
        return streams * (new_tokens - 1) / (time.perf_counter() - begun_s)

    @torch.inference_mode()
    def first_token_s(self, prompt_tokens: int) -> float:
        ids = torch.randint(1000, 20000, (1, prompt_tokens))
        begun_s = time.perf_counter()
        self._model(input_ids=ids, use_cache=True, logits_to_keep=1).logits.argmax(dim=-1)
        return time.perf_counter() - begun_s
