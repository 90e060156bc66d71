"""The models of the planner's validation, and prompts for them."""

from tests.bench.engines.prompts import long_prompt

WIDE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
MODELS = {
    "smollm2": ("smollm2_135m", ()),
    "wide": ("tiny", (*(f"model.architecture.{key}={value}" for key, value in WIDE.items()), "quantization=int8")),
}
LAYERS = {"smollm2": 30, "wide": 8}


def prompt(model: str, tokens: int, seed: int) -> str:
    """About `tokens` tokens that no other seed begins with."""
    if model == "smollm2":
        return long_prompt(tokens, seed)
    return long_prompt(tokens, seed)[1 : tokens + 1]  # a token a byte
