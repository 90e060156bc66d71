"""Which slot a request gets, and what slots hold."""

from hypothesis import given
from hypothesis import strategies as st

from hyperlane.generate.slots import Slots, common_prefix


@given(st.lists(st.integers(0, 1), max_size=40), st.lists(st.integers(0, 1), max_size=40))
def test_the_common_beginning(a: list[int], b: list[int]) -> None:
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


def test_lanes_are_neighbours_of_even_size() -> None:
    assert [Slots(5, 2).lane(slot) for slot in range(5)] == [0, 0, 0, 1, 1]


def test_lanes_fill_evenly_and_close_together() -> None:
    slots = Slots(8, 2)
    assert [slots.take([1]) for _ in range(9)] == [0, 4, 1, 5, 2, 6, 3, 7, None]
    for slot in (1, 2):
        slots.release(slot)
    assert [slots.take([1]) for _ in range(2)] == [1, 2]


def test_where_distance_costs_nothing_what_a_slot_holds_decides() -> None:
    taken = []
    for ragged in (False, True):
        slots = Slots(8, 1, ragged=ragged)
        slots.take([9])
        slots.write(6, 0, [1, 2, 3])
        taken.append(slots.take([1, 2, 3, 4]))
    assert taken == [1, 6]


def test_the_slot_that_holds_most_of_it_is_taken_and_then_the_one_unused_for_longest() -> None:
    slots = Slots(3, 1)
    for tokens in ([1, 2, 3], [1, 2, 9], [5]):
        slot = slots.take(tokens)
        slots.write(slot, 0, tokens)
        slots.release(slot)
    assert slots.held == [[1, 2, 3], [1, 2, 9], [5]]
    assert slots.take([1, 2, 9, 4]) == 1
    slots.release(1)
    assert slots.take([7]) == 0


def test_what_was_written_replaces_what_stood_behind_its_place() -> None:
    slots = Slots(2, 1)
    slots.write(0, 0, [1, 2, 3, 4])
    slots.write(0, 2, [9])
    assert slots.held[0] == [1, 2, 9]
    assert slots.source([1, 2, 9, 4], besides=1) == (0, 3)
    assert slots.source([1, 2, 9, 4], besides=0) == (1, 0)
    slots.forget(0)
    assert slots.shared(0, [1, 2]) == 0
