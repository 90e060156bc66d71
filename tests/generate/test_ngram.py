"""Prompt lookup: what followed the same tokens before."""

from hypothesis import given
from hypothesis import strategies as st

from hyperlane.generate.ngram import LENGTHS, Ngram


def test_what_followed_the_same_tokens_last_is_proposed() -> None:
    tokens = [1, 2, 3, 9, 9, 1, 2, 4, 8, 7, 1, 2]
    assert Ngram().propose(0, tokens, (), 3) == [4, 8, 7]


def test_more_tokens_in_common_count_more_than_a_later_place() -> None:
    tokens = [5, 1, 2, 3, 0, 1, 2, 4, 0, 5, 1, 2]
    assert Ngram().propose(0, tokens, (), 2) == [3, 0]


def test_a_repetition_is_continued_beyond_its_end() -> None:
    assert Ngram().propose(0, [7, 1, 2, 1, 2], (), 5) == [1, 2, 1, 2, 1]


def test_drafts_go_on_behind_a_guess() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 9, 1, 2]
    assert Ngram().propose(0, tokens, [3, 4], 2) == [5, 6]
    assert Ngram().propose(0, [1, 2, 1, 2], [1, 2], 5) == [1, 2, 1, 2, 1], "a guess is copied from too"


def test_nothing_is_proposed_where_nothing_repeats() -> None:
    drafter = Ngram()
    assert drafter.propose(0, list(range(50)), (), 4) == []
    assert drafter.propose(0, [1], (), 4) == []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 9))
def test_a_text_fed_token_by_token_gives_what_the_whole_text_gives(tokens: list[int], count: int) -> None:
    grown, longest = Ngram(), 0
    for size in range(1, len(tokens) + 1):
        found = grown.propose(0, tokens[:size], (), count)
        assert found == Ngram().propose(0, tokens[:size], (), count)
        longest = max(longest, len(found))
        last = tuple(tokens[size - min(LENGTHS) : size])
        seen = any(tuple(tokens[at : at + len(last)]) == last for at in range(size - len(last)))
        assert len(found) == (count if size >= min(LENGTHS) and seen else 0)
    grown.forget(0)
    assert grown.propose(0, [1, 2], (), count) == []
