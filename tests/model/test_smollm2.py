"""A real model: the tokens of chained shards are those of Hugging Face's own generation."""

import importlib.util

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hyperlane.generate.tokenizer import Tokenizer
from hyperlane.transport.frame import Run
from tests.fixtures_model import SMOLLM2, Chain, Exported

TOKENS = 64
PROMPTS = (
    "What is AI?",
    "Write a short story about a lighthouse keeper.",
    "Explain how a bicycle stays upright.",
    "def fibonacci(n):",
    "Name three rivers of Europe and a city on each.",
)


@pytest.fixture(scope="module")
def prompts(smollm2: Exported) -> list[list[int]]:
    tokenizer = Tokenizer.load(smollm2.checkpoint)
    return [tokenizer.encode_chat([("user", prompt)]) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def hf() -> PreTrainedModel:
    """The weights as transformers itself reads them from the GGUF file."""
    package, file = SMOLLM2.removeprefix("package:").split("/")
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    folder = spec.submodule_search_locations[0]
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)


@pytest.mark.parametrize("bounds", [(0, 30), (0, 15, 30), (0, 7, 21, 30)], ids=["1", "2", "3"])
def test_greedy_tokens_equal_those_of_hf(
    smollm2: Exported, prompts: list[list[int]], hf: PreTrainedModel, bounds: tuple[int, ...]
) -> None:
    chain = smollm2.chain(*bounds, slots=len(prompts), context=160)
    for prompt, answer in zip(prompts, _greedy(chain, prompts), strict=True):
        assert answer == _likeliest(hf, prompt, answer)


def _likeliest(hf: PreTrainedModel, prompt: list[int], answer: list[int]) -> list[int]:
    """HF's likeliest token at each place of `answer`, which is its greedy answer if the two are the same."""
    with torch.no_grad():
        logits = hf(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
    return logits.argmax(1).tolist()


def _greedy(chain: Chain, prompts: list[list[int]]) -> list[list[int]]:
    """All prompts at once, each in its own slot, prefilled in chunks of 16."""
    answers: list[list[int]] = []
    for slot, prompt in enumerate(prompts):
        for start in range(0, len(prompt), 16):
            chunk = prompt[start : start + 16]
            outputs = 1 if start + 16 >= len(prompt) else 0
            result = chain.step([Run(slot, outputs, start, len(chunk))], chunk)
        answers.append([int(result.ids_NK[0, 0])])
    for step in range(TOKENS - 1):
        runs = [Run(slot, 1, len(prompt) + step, 1) for slot, prompt in enumerate(prompts)]
        result = chain.step(runs, [answer[-1] for answer in answers])
        for answer, ids_K in zip(answers, np.asarray(result.ids_NK), strict=True):
            answer.append(int(ids_K[0]))
    return answers
