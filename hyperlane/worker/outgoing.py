"""The last worker's candidates as the bytes of their frame."""

import numpy as np

from hyperlane.worker.result import StepResult


def candidates_payload(result: StepResult) -> memoryview:
    """Ids int32 [N, K], logits float32 [N, K], logsumexp float32 [N], one behind another."""
    assert result.ids_NK is not None
    assert result.logits_NK is not None
    assert result.logsumexp_N is not None
    count = result.ids_NK.size
    payload = np.empty(2 * count + len(result.logsumexp_N), "<f4")
    payload[:count].view("<i4")[...] = result.ids_NK.reshape(-1)
    payload[count : 2 * count] = result.logits_NK.reshape(-1)
    payload[2 * count :] = result.logsumexp_N
    return payload.view(np.uint8).data
