"""How many drafts a step carries: as many as pay, by how often they were right and what a row more costs. No IO.

A draft is accepted when it equals the token that its row gives, greedy or drawn, so speculation changes no token.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hyperlane.generate.step import Company

SIZES = (1, 3, 7, 15, 31, 63)
"""Numbers of drafts, few of them: a worker prepares a call for each."""
ROW_COST = 0.4
"""What a row more costs, of a step of one row, until it is measured."""
FORGETTING = 0.1
FIRST_GUESS = 0.6  # of the acceptance, before anything was tried
AHEAD = 0.3  # drafts ahead of others cost an idle worker's time only, but not for nothing


class Drafter(Protocol):
    """Where drafts come from."""

    def propose(self, request: int, tokens: list[int], guess: Sequence[int], count: int) -> list[int]: ...

    def forget(self, request: int) -> None: ...


@dataclass(slots=True)
class RowCost:
    """How a step's time grows with its rows, from steps that were alone in the chain."""

    share: float = ROW_COST
    draft_share: float = 0.0  # what a draft costs to make, of a step of one row
    _one_row_s: float | None = None

    def observe(self, rows: int, seconds: float) -> None:
        """A step of so many rows of one sequence took so long."""
        if rows == 1:
            before_s = seconds if self._one_row_s is None else self._one_row_s
            self._one_row_s = before_s + FORGETTING * (seconds - before_s)
        elif self._one_row_s is not None:
            share = max(0.0, (seconds / self._one_row_s - 1) / (rows - 1))
            self.share += FORGETTING * (share - self.share)

    def drafted(self, drafts: int, seconds: float) -> None:
        """To make so many drafts took so long."""
        if self._one_row_s is not None:
            share = seconds / drafts / self._one_row_s
            self.draft_share += FORGETTING * (share - self.draft_share)

    def steps(self, company: Company, drafts: int) -> float:
        """What a step costs, in steps of one row, with so many drafts of one more of its sequences.

        Workers that are not `ragged` need a call for each sequence with drafts, and one for the rest. The rows of
        drafts that others have already are left out: they cost the same either way.
        """
        rows, calls = company.sequences + drafts, 1
        if not company.ragged:
            drafting = company.drafting + bool(drafts)
            calls = drafting + (company.sequences > drafting)
        return calls * (1 - self.share) + rows * self.share


@dataclass(slots=True)
class _Record:
    """How one request's drafts fared; `shadow` is a draft that was not sent, only compared."""

    acceptance: float = FIRST_GUESS
    shadow: int | None = None
    shadow_at: int = 0  # the position that it is for
    proposed: bool = False  # anything yet


@dataclass(slots=True)
class Speculation:
    """The scheduler's Drafts. Where they do not pay, one draft is compared, not sent, so that better times are seen."""

    drafter: Drafter
    most: int  # drafts in a step
    cost: RowCost = field(default_factory=RowCost)
    clock: Callable[[], float] = time.perf_counter
    _records: dict[int, _Record] = field(default_factory=dict)

    def draft(
        self, request: int, tokens: list[int], guess: Sequence[int], room: int, company: Company
    ) -> Sequence[int]:
        """Drafts behind `tokens` and `guess` for a step of this company."""
        record = self._records.setdefault(request, _Record())
        self._look_at_shadow(record, tokens)
        sizes = [size for size in SIZES if size <= min(room, self.most)]
        if not company.sequences:
            count = _ahead(record.acceptance, len(guess), sizes)
        else:
            count = self._count(record.acceptance, company, sizes)
        drafts = self._proposed(record, request, tokens, guess, count or 1)
        if count:
            return drafts
        if drafts and not guess:
            record.shadow, record.shadow_at = drafts[0], len(tokens)
        return []

    def learn(self, request: int, accepted: int, rejected: bool) -> None:
        record = self._records.setdefault(request, _Record())
        for _ in range(accepted):
            record.acceptance += FORGETTING * (1 - record.acceptance)
        if rejected:
            record.acceptance -= FORGETTING * record.acceptance

    def observe(self, rows: int, seconds: float) -> None:
        self.cost.observe(rows, seconds)

    def forget(self, request: int) -> None:
        self._records.pop(request, None)
        self.drafter.forget(request)

    def _proposed(
        self, record: "_Record", request: int, tokens: list[int], guess: Sequence[int], count: int
    ) -> list[int]:
        """The drafter's, timed; the first time it may read a whole prompt, which says nothing."""
        begun_s = self.clock()
        drafts = self.drafter.propose(request, tokens, guess, count)
        if drafts and record.proposed:
            self.cost.drafted(len(drafts), self.clock() - begun_s)
        record.proposed = True
        return drafts

    def _look_at_shadow(self, record: _Record, tokens: list[int]) -> None:
        if record.shadow is None or len(tokens) <= record.shadow_at:
            return
        right = tokens[record.shadow_at] == record.shadow
        record.acceptance += FORGETTING * (right - record.acceptance)
        record.shadow = None

    def _count(self, acceptance: float, company: Company, sizes: Sequence[int]) -> int:
        """The number of drafts with most tokens for the time; the other sequences give a token each."""

        def speed(drafts: int) -> float:
            cost = self.cost.steps(company, drafts) + drafts * self.cost.draft_share
            return (company.sequences - 1 + expected(acceptance, drafts)) / cost

        return max((0, *sizes), key=speed)


def expected(acceptance: float, drafts: int) -> float:
    """Tokens that a row with so many drafts behind it gives: each counts if all before it were right."""
    if acceptance >= 1:
        return 1.0 + drafts
    return float((1 - acceptance ** (drafts + 1)) / (1 - acceptance))


def _ahead(acceptance: float, guessed: int, sizes: Sequence[int]) -> int:
    """As many as are likely to be right, behind `guessed` that must be right first."""
    return max((size for size in sizes if acceptance ** (guessed + size) >= AHEAD), default=0)
