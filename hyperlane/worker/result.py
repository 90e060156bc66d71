"""What a step of a shard gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.worker.gpu import DeviceRows

FIELDS = {
    "hidden_out": "hidden_RD",
    "logits": "logits_NV",
    "candidate_ids": "ids_NK",
    "candidate_logits": "logits_NK",
    "logsumexp": "logsumexp_N",
}
"""Where the outputs of a graph go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """Hidden states, or what the outputs asked for in the last shard."""

    hidden_RD: NDArray[Any] | DeviceRows | None = None
    ids_NK: NDArray[np.int64] | None = None
    logits_NK: NDArray[np.float32] | None = None  # of the candidates `ids_NK`, the largest first
    logsumexp_N: NDArray[np.float32] | None = None  # over the whole vocabulary
    logits_NV: NDArray[np.float32] | None = None
    gpu_ns: Callable[[], tuple[int, int]] | None = None  # when a GPU began and ended it, for when it is over
