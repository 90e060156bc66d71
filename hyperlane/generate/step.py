"""What the scheduler hands to the chain: one pass of one lane, or a copy of keys and values between two slots."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from hyperlane.transport.frame import Run


class Use(Enum):
    """What a step is for."""

    PREFILL = "prefill"  # a piece of a prompt
    DECODE = "decode"  # the next token of each ready sequence of a lane, and drafts behind it
    AHEAD = "ahead"  # more drafts of one sequence, before those in flight are verified
    FORK = "fork"  # no rows: a slot begins as the copy of another


class Company(NamedTuple):
    """The sequences that a step takes along when one of them may add drafts; none: a step of drafts alone."""

    sequences: int
    drafting: int = 0  # of them, that have drafts already
    ragged: bool = False  # workers compute the step in one call


class Owner(NamedTuple):
    """Whose run it is. After a wrong draft the sequence goes on as the next branch; older ones count for nothing."""

    request: int
    branch: int


@dataclass(frozen=True, slots=True)
class Fork:
    """`target` takes over the first `count` positions of `source`."""

    source: int
    target: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One message to the chain; its results come back in the order in which steps were sent."""

    number: int
    lane: int
    use: Use
    owners: tuple[Owner, ...]  # one a run; of a fork the one that gets the copy
    runs: tuple[Run, ...] = ()
    token_ids: tuple[int, ...] = ()
    fork: Fork | None = None

    @property
    def outputs(self) -> int:
        return sum(run.outputs for run in self.runs)


@dataclass(frozen=True, slots=True)
class Following:
    """A step to be sent as soon as the rows of the one before give its tokens, greedily and none of `stop_ids`."""

    step: Step  # without its tokens
    stop_ids: frozenset[int]
