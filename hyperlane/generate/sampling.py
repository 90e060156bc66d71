"""From a row of logits to the next token. Pure: the same row, settings and key give the same token anywhere.

The order of the filters is HF's: repetition penalty, temperature, top-k, top-p, min-p.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose; `temperature=0` takes the largest logit, the lower id on a tie."""

    temperature: float = 0.0
    top_k: int = 0  # 0 keeps all
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    @property
    def is_greedy(self) -> bool:
        """Whether the largest logit wins, and nothing else counts."""
        return self.temperature == 0 and self.repetition_penalty == 1.0

    def needs_whole_row(self, candidates: int) -> bool:
        """Whether the `candidates` largest logits can be too few: the tail can win, or carries probability."""
        if self.repetition_penalty != 1.0:
            return True
        return self.temperature > 0 and not 0 < self.top_k <= candidates


def sample(
    ids_K: NDArray[np.int64],
    logits_K: NDArray[np.float32],
    sampling: Sampling,
    *,
    request: int,
    position: int,
    seen: Sequence[int] = (),
) -> int:
    """The next token id, of candidates (or of a whole row, `ids_K` counting up).

    `seen` are the ids of prompt and answer, for the repetition penalty. The draw is keyed by (seed, request, position),
    so it depends neither on batching nor on placement.
    """
    order = np.lexsort(
        (ids_K, -logits_K)
    )  # by logit, then by id: what comes first on a tie does not depend on the sender
    ids_K, scores_K = ids_K[order], logits_K[order].astype(np.float64)
    if sampling.repetition_penalty != 1.0 and seen:
        scores_K = _penalize(ids_K, scores_K, seen, sampling.repetition_penalty)
        order = np.lexsort((ids_K, -scores_K))
        ids_K, scores_K = ids_K[order], scores_K[order]
    if sampling.temperature == 0:
        return int(ids_K[0])
    probability_K = _filtered(scores_K / sampling.temperature, sampling)
    return int(ids_K[_draw(probability_K, sampling.seed, request, position)])


def _penalize(
    ids_K: NDArray[np.int64], scores_K: NDArray[np.float64], seen: Sequence[int], penalty: float
) -> NDArray[np.float64]:
    """CTRL's penalty (arXiv 1909.05858), as HF applies it: a seen token's logit moves away from being chosen."""
    worse_K = np.where(scores_K > 0, scores_K / penalty, scores_K * penalty)
    return np.where(np.isin(ids_K, np.asarray(seen)), worse_K, scores_K)


def _filtered(scores_K: NDArray[np.float64], sampling: Sampling) -> NDArray[np.float64]:
    """Probabilities of the descending scores that pass top-k, top-p and min-p; the first always does."""
    kept = len(scores_K) if sampling.top_k == 0 else min(sampling.top_k, len(scores_K))
    probability_K = _softmax(scores_K[:kept])
    if sampling.top_p < 1:
        before_K = np.cumsum(probability_K) - probability_K
        probability_K = _softmax(scores_K[: max(1, int(np.sum(before_K < sampling.top_p)))])
    if sampling.min_p > 0:
        kept = max(1, int(np.sum(probability_K >= sampling.min_p * probability_K[0])))
        probability_K = _softmax(scores_K[:kept])
    return probability_K


def _softmax(scores_K: NDArray[np.float64]) -> NDArray[np.float64]:
    weight_K = np.exp(scores_K - scores_K[0])
    return np.asarray(weight_K / weight_K.sum())


def _draw(probability_K: NDArray[np.float64], seed: int, request: int, position: int) -> int:
    key = np.array((seed, (request << 32) | position), np.uint64)
    uniform = (int(np.random.Philox(key=key).random_raw()) >> 11) * 2.0**-53  # as numpy's Generator makes a float
    index = int(probability_K.cumsum().searchsorted(uniform, side="right"))
    return min(index, len(probability_K) - 1)
