"""Sampling against what its settings mean, and against HF's own filters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlane.generate.sampling import Sampling, sample

VOCAB = 300


def row(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(VOCAB), np.random.default_rng(seed).normal(0, 3, VOCAB).astype(np.float32)


def candidates(ids_V: np.ndarray, logits_V: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-logits_V, kind="stable")[:count]
    return ids_V[order], logits_V[order]


def test_greedy_takes_the_largest_and_the_lower_id_on_a_tie() -> None:
    ids, logits = np.array([9, 4, 7]), np.array([1.0, 2.0, 2.0], np.float32)
    assert sample(ids, logits, Sampling(), request=0, position=0) == 4


def test_the_draw_depends_on_seed_request_and_position_alone() -> None:
    ids, logits = row()
    base = Sampling(temperature=1.0, seed=3)
    draws = [sample(ids, logits, base, request=r, position=p) for r in range(3) for p in range(20)]
    assert draws == [sample(ids, logits, base, request=r, position=p) for r in range(3) for p in range(20)]
    assert len(set(draws)) > 5
    other = Sampling(temperature=1.0, seed=4)
    assert draws != [sample(ids, logits, other, request=r, position=p) for r in range(3) for p in range(20)]


@given(st.integers(0, 20), st.integers(1, 64), st.floats(0.1, 1), st.floats(0, 0.3))
def test_candidates_give_what_the_whole_row_gives(seed: int, top_k: int, top_p: float, min_p: float) -> None:
    ids, logits = row(seed)
    sampling = Sampling(temperature=0.8, top_k=top_k, top_p=top_p, min_p=min_p, seed=1)
    assert not sampling.needs_whole_row(64)
    few = candidates(ids, logits, 64)
    for position in range(5):
        whole = sample(ids, logits, sampling, request=0, position=position)
        assert sample(*few, sampling, request=0, position=position) == whole


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=1.0), Sampling(temperature=1.0, top_k=65), Sampling(repetition_penalty=1.1)],
)
def test_what_reaches_into_the_tail_needs_the_whole_row(sampling: Sampling) -> None:
    assert sampling.needs_whole_row(64)


def test_filters_keep_what_hf_keeps() -> None:
    import torch
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    ids, logits = row(5)
    seen = [3, 50, 200]
    hf = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.3),
            TemperatureLogitsWarper(0.9),
            TopKLogitsWarper(40),
            TopPLogitsWarper(0.85),
            MinPLogitsWarper(0.05),
        ]
    )
    scores = hf(torch.tensor([seen]), torch.tensor(logits)[None])[0]
    wanted = torch.softmax(scores.double(), 0).numpy()
    sampling = Sampling(temperature=0.9, top_k=40, top_p=0.85, min_p=0.05, repetition_penalty=1.3)
    counts = np.zeros(VOCAB)
    draws = 4000
    for position in range(draws):
        counts[sample(ids, logits, sampling, request=0, position=position, seen=seen)] += 1
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(wanted))
    assert np.abs(counts / draws - wanted).max() < 0.03


def test_frequencies_follow_the_probabilities() -> None:
    ids, logits = np.arange(3), np.log(np.array([0.5, 0.3, 0.2], np.float32))
    sampling = Sampling(temperature=1.0)
    draws = [sample(ids, logits, sampling, request=1, position=p) for p in range(3000)]
    assert np.bincount(draws) / 3000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
