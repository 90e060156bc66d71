"""What is said when memory runs out: how much was needed, and what to lower."""

import re

from hyperlane.errors import OutOfMemoryError, one_line

_SIGNS = ("allocate memory", "bad_alloc", "out of memory", "bad allocation", "unable to allocate")
_LOWER = "lower generate.slots or generate.context, or give this worker fewer layers"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library failed for want of memory: their own types do not tell."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)


def weights_out_of_memory(weight_bytes: int, free_bytes: int | None) -> OutOfMemoryError:
    return OutOfMemoryError(f"the shard's weights need {_size(weight_bytes)}{_free(free_bytes)}; {_LOWER}")


def cache_out_of_memory(cache_bytes: int, slots: int, context: int, free_bytes: int | None) -> OutOfMemoryError:
    """For keys and values of `slots` sequences of `context` tokens."""
    what = f"keys and values of {slots} slots of {context} tokens need {_size(cache_bytes)}"
    return OutOfMemoryError(f"{what}{_free(free_bytes)}; {_LOWER}")


def step_out_of_memory(rows: int, error: BaseException) -> OutOfMemoryError:
    """For a step whose buffers could not be had; `error` may name their size."""
    asked = re.search(r"(?:size|allocate) ?:? ?(\d+)", str(error))
    needed = f", a buffer of {_size(int(asked[1]))} could not be had" if asked else f" ({one_line(error)[:120]})"
    return OutOfMemoryError(
        f"a step of {rows} rows ran out of memory{needed}; "
        f"lower generate.prefill_chunk, generate.slots or generate.context"
    )


def _free(free_bytes: int | None) -> str:
    return "" if free_bytes is None else f", {_size(free_bytes)} are free"


def _size(count: int) -> str:
    for unit, scale in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << scale:
            return f"{count / (1 << scale):,.1f} {unit}"
    return f"{count} bytes"
