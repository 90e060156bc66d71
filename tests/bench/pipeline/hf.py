"""The same shapes in HF transformers on torch: eager, and compiled with a static cache."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.bench.pipeline.parts import SHAPES


def load(shape: str, devices: Sequence[str]) -> Any:
    """Random FP16 weights; on several devices the layers are split evenly between them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = {key: value for key, value in SHAPES[shape].items() if key != "model_type"}
    config = LlamaConfig(**fields, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float16)
    with torch.device(devices[0]):
        model = LlamaForCausalLM(config).eval()
    if len(devices) > 1:
        from accelerate import dispatch_model

        layers = config.num_hidden_layers
        places: dict[str, Any] = {
            f"model.layers.{i}": devices[i * len(devices) // layers].removeprefix("cuda:") for i in range(layers)
        }
        places = {name: int(place) for name, place in places.items()}
        last = int(devices[-1].removeprefix("cuda:"))
        first = int(devices[0].removeprefix("cuda:"))
        places |= {"model.embed_tokens": first, "model.rotary_emb": first, "model.norm": last, "lm_head": last}
        model = dispatch_model(model, places)
    return model


def decode_s(model: Any, rows: int, past: int, steps: int, *, context: int, compiled: bool) -> float:
    """Seconds of a greedy step of `rows` sequences, the median."""
    import torch
    from transformers import DynamicCache, StaticCache

    device = next(model.parameters()).device
    with torch.no_grad():
        if compiled:
            cache: Any = StaticCache(config=model.config, max_cache_len=context)
        else:
            cache = DynamicCache(config=model.config)
        ids = torch.zeros((rows, past), dtype=torch.int64, device=device)
        place = torch.arange(past, device=device)
        model(input_ids=ids, cache_position=place, past_key_values=cache, use_cache=True, logits_to_keep=1)

        def step(ids: Any, position: Any) -> Any:
            outcome = model(
                input_ids=ids,
                position_ids=position.expand(rows, 1),
                cache_position=position,
                past_key_values=cache,
                use_cache=True,
            )
            return outcome.logits[:, -1].argmax(-1, keepdim=True)

        run: Callable[[Any, Any], Any] = (
            torch.compile(step, mode="reduce-overhead", dynamic=False) if compiled else step
        )
        ids, ends_s = torch.full((rows, 1), 7, dtype=torch.int64, device=device), []
        for position in range(past, past + steps):
            place = torch.tensor([position], dtype=torch.int64, device=device)
            ids = run(ids, place).to(device).clone()
            ids.tolist()  # a client would see the token now
            ends_s.append(time.perf_counter())
    return float(np.median(np.diff(ends_s[steps // 4 :])))


def prefill_s(model: Any, tokens: int, repeats: int = 5) -> float:
    """Seconds until the first token of a prompt, eager, the median."""
    import torch
    from transformers import DynamicCache

    device = next(model.parameters()).device
    ids = torch.randint(0, model.config.vocab_size, (1, tokens), device=device)
    times_s = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            begin_s = time.perf_counter()
            cache = DynamicCache(config=model.config)
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits.argmax().item()
            times_s.append(time.perf_counter() - begin_s)
    return float(np.median(times_s[1:]))
