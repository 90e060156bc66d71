"""A step's candidates as the last worker sends them: ids int32 [N, K], logits float32 [N, K], logsumexp float32 [N]."""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.frame import Frame


def candidates_of(frame: Frame) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids and logits [N, K] of a CANDIDATES frame, views of its payload."""
    count, shape = frame.rows * frame.width, (frame.rows, frame.width)
    ids_NK = np.frombuffer(frame.payload, "<i4", count).reshape(shape)
    return ids_NK, np.frombuffer(frame.payload, "<f4", count, offset=4 * count).reshape(shape)


def greedy(ids_NK: NDArray[np.integer], logits_NK: NDArray[np.float32]) -> list[int]:
    """Of each row the id of the largest logit, the lower id on a tie; of a row with a NaN the first id."""
    is_largest_NK = logits_NK == logits_NK.max(axis=1, keepdims=True)
    ids_N = np.where(is_largest_NK, ids_NK, np.iinfo(ids_NK.dtype).max).min(axis=1)
    found: list[int] = np.where(is_largest_NK.any(axis=1), ids_N, ids_NK[:, 0]).tolist()
    return found
