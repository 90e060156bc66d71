"""Drafts by prompt lookup: what followed the same few tokens before, in the prompt or the answer. Pure.

Saxena, Prompt Lookup Decoding (2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

LENGTHS = (5, 3, 2)
"""How many last tokens are looked for, the surest first."""


@dataclass(slots=True)
class _Index:
    """Where each run of tokens was last followed by another token."""

    ends: dict[tuple[int, ...], int] = field(default_factory=dict)  # tokens -> position behind them
    indexed: int = 0


class Ngram:
    """A Drafter: costs a few microseconds a token, and needs no model."""

    def __init__(self) -> None:
        self._indices: dict[int, _Index] = {}

    def propose(self, request: int, tokens: list[int], guess: Sequence[int], count: int) -> list[int]:
        """At most `count` tokens behind `tokens` and `guess`; none where nothing like it was there before."""
        index = self._indices.setdefault(request, _Index())
        _catch_up(index, tokens)
        last = [*tokens[-LENGTHS[0] :], *guess][-LENGTHS[0] :]
        for length in LENGTHS:
            end = index.ends.get(tuple(last[-length:])) if len(last) >= length else None
            if end is not None:
                return _copy(tokens, guess, end, count)
        return []

    def forget(self, request: int) -> None:
        self._indices.pop(request, None)


def _catch_up(index: _Index, tokens: list[int]) -> None:
    """Every run of tokens but the last, which nothing follows yet."""
    for end in range(index.indexed + 1, len(tokens)):
        for length in LENGTHS:
            if length <= end:
                index.ends[tuple(tokens[end - length : end])] = end
    index.indexed = max(index.indexed, len(tokens) - 1)


def _copy(tokens: list[int], guess: Sequence[int], start: int, count: int) -> list[int]:
    """`count` tokens from `start`; where they end the copy reads what it wrote, so that a period goes on."""
    known = tokens[start : start + count]
    if len(known) < count:
        known += guess
    return [known[i % len(known)] for i in range(count)]
