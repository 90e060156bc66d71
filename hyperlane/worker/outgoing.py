"""The last worker's candidates as the bytes of their frame."""

import numpy as np

from hyperlane.worker.result import StepResult

ID_TYPE = np.dtype("<i4")


def candidates_payload(result: StepResult) -> bytes:
    """Ids int32 [N, K], logits float32 [N, K], logsumexp float32 [N], one behind another."""
    assert result.ids_NK is not None
    assert result.logits_NK is not None
    assert result.logsumexp_N is not None
    return b"".join((result.ids_NK.astype(ID_TYPE).data, result.logits_NK.data, result.logsumexp_N.data))
