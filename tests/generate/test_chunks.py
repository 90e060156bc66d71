"""A prompt is cut so that it crosses the chain soonest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlane.generate.chunks import LEAST_TOKENS, STEP_TOKENS, chunk_tokens


def crossing(tokens: int, hops: int, chunk: int) -> int:
    """Time of a prompt over equal workers, in tokens of one of them."""
    sizes = [min(chunk, tokens - at) for at in range(0, tokens, chunk)]
    free = [0] * hops
    for size in sizes:
        done = 0
        for hop in range(hops):
            done = free[hop] = max(done, free[hop]) + STEP_TOKENS + size
    return free[-1]


@pytest.mark.parametrize("tokens", [20, 200, 512, 2000])
@pytest.mark.parametrize("hops", [2, 3, 5])
def test_no_other_size_is_much_better(tokens: int, hops: int) -> None:
    best = min(crossing(tokens, hops, chunk) for chunk in range(min(tokens, LEAST_TOKENS), tokens + 1))
    assert crossing(tokens, hops, chunk_tokens(tokens, hops, 65535)) <= 1.08 * best


@given(st.integers(1, 5000), st.integers(1, 9), st.integers(1, 600))
def test_never_longer_than_asked_for_nor_nothing(tokens: int, hops: int, longest: int) -> None:
    assert 1 <= chunk_tokens(tokens, hops, longest) <= longest


def test_one_worker_gets_the_longest_pieces() -> None:
    assert chunk_tokens(2000, 1, 256) == 256
