"""How a prompt is cut for the chain. Pure."""

import math

STEP_TOKENS = 4
"""What a step costs beyond its tokens, in tokens of a prompt."""
LEAST_TOKENS = 16
"""Smaller pieces than this multiply matrices badly."""


def chunk_tokens(tokens: int, hops: int, longest: int) -> int:
    """The size of the pieces in which a prompt crosses a chain soonest; at most `longest`.

    While one worker computes a piece the next one computes the piece before it. `n` pieces on `hops` workers take
    (n + hops - 1) * (STEP_TOKENS + tokens / n), which is least where n is sqrt(tokens * (hops - 1) / STEP_TOKENS).
    """
    if hops == 1 or tokens <= LEAST_TOKENS:
        return longest
    pieces = max(1, round(math.sqrt(tokens * (hops - 1) / STEP_TOKENS)))
    even = math.ceil(tokens / pieces)
    return min(longest, max(LEAST_TOKENS, -(-even // LEAST_TOKENS) * LEAST_TOKENS))
