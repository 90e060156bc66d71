"""Any array as the bytes of a frame, without a copy."""

from typing import Any

import numpy as np


def payload_of(array: Any) -> memoryview:
    """A view of the bytes of a NumPy array or of any CPU tensor that speaks DLPack (torch, for one).

    Raises ValueError for an array that is not contiguous: a copy is the caller's to make.
    """
    values = array if isinstance(array, np.ndarray) else np.from_dlpack(array)
    if not values.flags.c_contiguous:
        raise ValueError(f"an array of strides {values.strides} is not contiguous; make a contiguous copy")
    return values.reshape(-1).view(np.uint8).data
