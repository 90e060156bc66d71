"""How a prompt is cut for the chain. Pure."""

import math

STEP_TOKENS = 4
"""What a step costs beyond its tokens, in tokens of a prompt."""
LEAST_TOKENS = 32
"""Smaller pieces than this multiply matrices badly."""
_MULTIPLE = 8  # few sizes, as a worker prepares a call for each


def chunk_tokens(tokens: int, hops: int, longest: int) -> int:
    """The size of the pieces in which a prompt crosses a chain soonest; at most `longest`.

    While one worker computes a piece the next one computes the piece before it. `n` pieces on `hops` workers take
    (n + hops - 1) * (STEP_TOKENS + tokens / n), which is least where n is sqrt(tokens * (hops - 1) / STEP_TOKENS).
    """
    pieces = min(round(math.sqrt(tokens * (hops - 1) / STEP_TOKENS)), tokens // LEAST_TOKENS)
    if pieces < 2:
        return longest
    return min(longest, math.ceil(tokens / pieces / _MULTIPLE) * _MULTIPLE)
