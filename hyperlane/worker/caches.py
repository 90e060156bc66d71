"""Keys and values of all slots: their memory, and the copy of one slot's beginning to another."""

from collections.abc import Sequence

import numpy as np

from hyperlane.model.attention import POSITIONS
from hyperlane.worker.device_call import DeviceSide
from hyperlane.worker.memory import cache_out_of_memory, is_out_of_memory
from hyperlane.worker.signature import Cache, Signature, Value


def new_caches(
    signature: Signature, slots: int, context: int, device: DeviceSide | None, free_bytes: int | None
) -> tuple[Cache, ...]:
    """Room for `slots` sequences of `context` positions; OutOfMemoryError where it takes more than `free_bytes`.

    What will be needed is compared with what is free first: the kernel promises more memory than it has.
    """
    # Whole tiles of our own cache; or one position more for the idle rows of a batch.
    positions = -(-context // POSITIONS) * POSITIONS if signature.is_ragged else context + 1
    needed = slots * sum(_slot_bytes(value, positions) for value in signature.caches)
    if free_bytes is not None and needed > free_bytes:
        raise cache_out_of_memory(needed, slots, context, free_bytes)
    try:
        return tuple([_new_cache(value, slots, positions, device) for value in signature.caches])
    except Exception as error:  # NumPy's or onnxruntime's
        if is_out_of_memory(error):
            raise cache_out_of_memory(needed, slots, context, free_bytes) from error
        raise


def copy_slot(caches: Sequence[Cache], device: DeviceSide | None, source: int, target: int, count: int) -> None:
    """Slot `target` takes over the first `count` positions of `source`."""
    for cache in caches:
        if device is None:
            whole = -(-count // POSITIONS) * POSITIONS  # a tile holds its positions side by side
            cache.memory[target, :, :whole] = cache.memory[source, :, :whole]
        else:
            device.copy_slot(cache.address, cache.slot_bytes, cache.shape, (source, target, count))


def _new_cache(value: Value, slots: int, positions: int, device: DeviceSide | None) -> Cache:
    shape, slot_bytes = _slot_shape(value, positions), _slot_bytes(value, positions)
    if device is not None:
        memory = device.zeros(slots * slot_bytes)
        address = memory.address
    else:
        memory = np.empty((slots, *shape), value.type)
        memory.fill(0)  # written now: a page that a step is the first to touch costs it more than the step itself
        address = memory.ctypes.data
    return Cache(name=value.name, type=value.type, shape=shape, address=address, slot_bytes=slot_bytes, memory=memory)


def _slot_shape(value: Value, positions: int) -> tuple[int, int, int]:
    return value.shape[1], positions, value.shape[3]


def _slot_bytes(value: Value, positions: int) -> int:
    return int(np.prod(_slot_shape(value, positions))) * np.dtype(value.type).itemsize
