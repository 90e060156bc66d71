"""Drafts as long as they pay."""

from collections.abc import Sequence

import pytest

from hyperlane.generate.speculation import RowCost, Speculation, expected
from hyperlane.generate.step import Company


class Counter:
    """Proposes 0, 1, 2, ... and remembers how much it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def propose(self, request: int, tokens: list[int], guess: Sequence[int], count: int) -> list[int]:
        self.asked.append(count)
        return list(range(count))

    def forget(self, request: int) -> None: ...


def make(share: float = 0.4, most: int = 31) -> Speculation:
    return Speculation(Counter(), most, RowCost(share))


def taught(speculation: Speculation, *fates: tuple[int, bool]) -> Speculation:
    for accepted, rejected in fates:
        speculation.learn(0, accepted, rejected)
    return speculation


def drafts(
    speculation: Speculation, beside: int = 1, room: int = 99, drafting: int = 0, *, ragged: bool = False
) -> int:
    return len(speculation.draft(0, list(range(5)), (), room, Company(beside, drafting, ragged)))


def test_a_row_gives_one_token_and_its_drafts_as_far_as_they_are_right() -> None:
    assert expected(0.0, 7) == 1
    assert expected(0.5, 2) == pytest.approx(1 + 0.5 + 0.25)
    assert expected(1.0, 7) == 8


def test_drafts_grow_while_they_are_right_and_stop_where_they_do_not_pay() -> None:
    speculation, sizes = make(), []
    for _ in range(30):
        sizes.append(drafts(speculation))
        speculation.learn(0, sizes[-1], False)
    assert sizes == sorted(sizes)
    assert sizes[-1] == 31
    for _ in range(40):
        speculation.learn(0, 0, True)
    assert drafts(speculation) == 0


def test_where_drafts_do_not_pay_one_is_compared_without_being_sent() -> None:
    speculation = taught(make(), *[(0, True)] * 30)
    tokens = [9]
    for _ in range(30):
        if speculation.draft(0, tokens, (), 99, Company(1)):
            break
        tokens.append(0)  # what `Counter` proposes first
    assert 3 < len(tokens) < 30


def test_rows_that_cost_nothing_are_all_used_and_dear_ones_are_not() -> None:
    assert drafts(taught(make(0.0), (1, True))) == 31
    assert drafts(taught(make(0.9), (1, True))) == 0


def test_beside_other_sequences_drafts_pay_later() -> None:
    speculation = taught(make(), *[(1, False)] * 8)
    assert drafts(speculation, beside=1) > 0
    assert drafts(speculation, beside=8) == 0
    taught(speculation, *[(31, False)] * 8)
    assert drafts(speculation, beside=8) > 0


def test_drafts_ahead_of_others_are_likely_ones() -> None:
    speculation = make()
    assert drafts(speculation, beside=0) <= 1
    taught(speculation, *[(31, False)] * 8)
    assert drafts(speculation, beside=0) == 31
    assert len(speculation.draft(0, [1], [2] * 31, 99, Company(0))) == 31


def test_no_more_than_there_is_room_for() -> None:
    speculation = taught(make(most=15), *[(31, False)] * 8)
    assert (drafts(speculation), drafts(speculation, room=9), drafts(speculation, room=0)) == (15, 7, 0)


def test_the_cost_of_a_row_is_measured() -> None:
    cost = RowCost()
    cost.observe(8, 1.0)  # says nothing before a single row was seen
    assert cost.share == RowCost().share
    for _ in range(60):
        cost.observe(1, 0.010)
        cost.observe(9, 0.026)
    assert cost.share == pytest.approx(0.2, abs=0.01)
    assert cost.steps(Company(1), 8) == pytest.approx(2.6, abs=0.1)


@pytest.mark.parametrize(
    ("company", "drafts", "one_call", "calls"),
    [
        (Company(1), 0, 1.0, 1.0),
        (Company(1), 3, 1.75, 1.75),
        (Company(4), 0, 1.75, 1.75),
        (Company(4), 1, 2.0, 2.75),  # a call for the drafts, one for the other three
        (Company(4, 3), 0, 1.75, 4.0),
        (Company(4, 3), 1, 2.0, 4.25),  # all have drafts: none is left for a call together
    ],
)
def test_a_step_costs_one_call_or_one_for_each_sequence_with_drafts(
    company: Company, drafts: int, one_call: float, calls: float
) -> None:
    assert RowCost(0.25).steps(company._replace(ragged=True), drafts) == one_call
    assert RowCost(0.25).steps(company, drafts) == calls


def test_beside_others_drafts_pay_sooner_where_they_take_no_call_of_their_own() -> None:
    speculation = taught(make(0.1), *[(1, False)] * 2)
    assert {ragged: drafts(speculation, beside=8, ragged=ragged) for ragged in (True, False)} == {True: 1, False: 0}
    assert drafts(speculation, beside=8, drafting=7) > 0, "its row alone is a call already"


def test_a_new_request_starts_anew() -> None:
    speculation = taught(make(), *[(0, True)] * 30)
    assert drafts(speculation) == 0
    speculation.forget(0)
    assert drafts(speculation) > 0
