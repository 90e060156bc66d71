"""A step cut into batches of two shapes, which every build of ONNX Runtime computes alike. Pure.

Decode: a range of slots, one token each. Prefill: one slot, several tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hyperlane.transport.frame import Run

GAP = 3
"""This many idle slots between two decoding ones cost about as much as another call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Runs that one call computes: `slots` slots from `first`, `length` tokens each; the others are idle."""

    first: int
    slots: int
    length: int
    members: tuple[int, ...]  # indices of the runs


def batches(runs: Sequence[Run]) -> list[Batch]:
    """A prefill a run of several tokens; runs of one token together where their slots are near each other."""
    found = [
        Batch(first=run.slot, slots=1, length=run.count, members=(i,)) for i, run in enumerate(runs) if run.count > 1
    ]
    group: list[int] = []
    for i in sorted((i for i, run in enumerate(runs) if run.count == 1), key=lambda i: runs[i].slot):
        if group and runs[i].slot - runs[group[-1]].slot > GAP:
            found.append(_decode(group, runs))
            group = []
        group.append(i)
    if group:
        found.append(_decode(group, runs))
    return found


def _decode(group: list[int], runs: Sequence[Run]) -> Batch:
    first, last = runs[group[0]].slot, runs[group[-1]].slot
    return Batch(first=first, slots=last - first + 1, length=1, members=tuple(group))
