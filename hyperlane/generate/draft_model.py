"""Drafts by a small model that runs beside the coordinator, greedily; it keeps keys and values as workers do."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hyperlane.generate.slots import common_prefix
from hyperlane.transport.frame import Run
from hyperlane.worker.result import StepResult


class WholeModel(Protocol):
    """A session of all layers."""

    def run(self, runs: Sequence[Run], rows: NDArray[Any], want_logits: bool = False) -> StepResult: ...


class DraftModel:
    """A Drafter. `slots` and `context` are the model's room; ids from `vocab_size` on mean nothing to the workers."""

    def __init__(self, model: WholeModel, *, slots: int, context: int, vocab_size: int) -> None:
        self._model, self._context, self._vocab_size = model, context, vocab_size
        self._held: list[list[int]] = [[] for _ in range(slots)]
        self._free = list(range(slots))
        self._slots: dict[int, int] = {}  # by request

    def propose(self, request: int, tokens: list[int], guess: Sequence[int], count: int) -> list[int]:
        """The likeliest `count` tokens behind `tokens` and `guess`, one step of the model for each."""
        text = [*tokens, *guess]
        slot = self._slot(request)
        if slot is None:
            return []
        drafts: list[int] = []
        for _ in range(min(count, self._context - len(text))):
            token = self._next(slot, text)
            if token >= self._vocab_size:
                break
            text.append(token)
            drafts.append(token)
        return drafts

    def forget(self, request: int) -> None:
        slot = self._slots.pop(request, None)
        if slot is not None:
            self._free.append(slot)

    def _slot(self, request: int) -> int | None:
        if request not in self._slots and self._free:
            self._slots[request] = self._free.pop()
        return self._slots.get(request)

    def _next(self, slot: int, text: list[int]) -> int:
        start = min(common_prefix(self._held[slot], text), len(text) - 1)
        run = Run(slot, 1, start, len(text) - start)
        result = self._model.run((run,), np.asarray(text[start:], np.int64))
        self._held[slot][start:] = text[start:]
        assert result.ids_NK is not None
        return int(result.ids_NK[0, 0])
