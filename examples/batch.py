"""Many prompts in one batch: lanes of slots keep every worker busy."""

from hyperlane import AutoDistributedModel

PROMPTS = [f"Write one sentence about the number {number}." for number in range(8)]

with AutoDistributedModel.from_pretrained("smollm2_135m", overrides=["generate.slots=8"]) as model:
    for answer in model.generate_full(PROMPTS, max_new_tokens=32):
        print(f"{answer.decode_tokens_per_s:5.1f} tok/s  {answer.prompt}  ->  {answer.text.strip()[:80]}")
