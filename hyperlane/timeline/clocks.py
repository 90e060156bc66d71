"""How far the clock of another machine is ahead, from questions that were answered quickly."""

from collections.abc import Sequence
from typing import NamedTuple


class Asked(NamedTuple):
    """One question: when it was asked and answered by our clock, and their clock in between."""

    asked_ns: int
    theirs_ns: int
    answered_ns: int


def offset_ns(questions: Sequence[Asked]) -> int:
    """Theirs less ours, from the quickest question.

    Wrong by at most half of its round trip; what could be 0 is 0, as processes of one machine share a clock.
    """
    best = min(questions, key=lambda asked: asked.answered_ns - asked.asked_ns)
    if best.asked_ns <= best.theirs_ns <= best.answered_ns:
        return 0
    return best.theirs_ns - (best.asked_ns + best.answered_ns) // 2
