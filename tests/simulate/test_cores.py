"""Workers of one machine: steps in their order, cores shared, quotas kept."""

from functools import partial

import pytest

from hyperlane.simulate.clock import Clock
from hyperlane.simulate.cores import PERIOD_S, Cores, Seat, Work


def ends(cores: int, submitted: list[tuple[Seat, float]], crowded: float = 1.0) -> list[float]:
    """When each piece of work, all submitted at once, is done."""
    clock, found = Clock(), [0.0] * len(submitted)
    machine = Cores(clock, cores)

    def note(index: int) -> None:
        found[index] = clock.now_s

    for index, (seat, work_s) in enumerate(submitted):
        machine.submit(seat, Work(work_s, crowded, partial(note, index)))
    clock.run()
    return found


def test_a_worker_computes_one_step_after_another() -> None:
    seat = Seat(1, 1.0)
    assert ends(0, [(seat, 1.0), (seat, 0.5)]) == pytest.approx([1.0, 1.5])


def test_workers_share_the_cores_that_there_are() -> None:
    # Three threads on two cores: the short one ends at 1.5, then the others have a core each.
    assert ends(2, [(Seat(1, 1.0), 1.0), (Seat(1, 1.0), 2.0), (Seat(1, 1.0), 2.0)]) == pytest.approx([1.5, 2.5, 2.5])


def test_without_a_machine_nobody_is_in_the_way() -> None:
    assert ends(0, [(Seat(4, 1.0), 1.0), (Seat(4, 1.0), 1.0)]) == pytest.approx([1.0, 1.0])


def test_a_quota_lets_short_work_pass_and_holds_long_work_back() -> None:
    assert ends(2, [(Seat(1, 0.25), 0.2 * PERIOD_S)]) == pytest.approx([0.2 * PERIOD_S])
    (long,) = ends(2, [(Seat(1, 0.25), 10 * PERIOD_S)])
    assert 38.5 * PERIOD_S < long <= 40 * PERIOD_S


def test_a_quota_is_felt_by_the_phase_of_its_period() -> None:
    def end(phase: float) -> float:
        clock, found = Clock(), []
        Cores(clock, 0, phase).submit(Seat(1, 0.5), Work(0.6 * PERIOD_S, 1.0, lambda: found.append(clock.now_s)))
        clock.run()
        return found[0] / PERIOD_S

    assert end(0.0) == pytest.approx(1.1)  # half a period of work, half of standing still, the rest
    assert end(0.3) == pytest.approx(0.8)
    assert end(0.6) == pytest.approx(0.6)  # the next period's budget comes before this one's is spent


def test_who_stands_still_leaves_its_core_to_others() -> None:
    held, free = ends(1, [(Seat(1, 0.25), 5 * PERIOD_S), (Seat(1, 1.0), 15 * PERIOD_S)])
    assert free == pytest.approx(20 * PERIOD_S, rel=0.05)  # both together keep the core busy
    assert held <= free + PERIOD_S


def test_work_beside_others_takes_longer() -> None:
    # Both at 1.25 of their time until the short one is through; what is left of the other then goes at full speed.
    assert ends(2, [(Seat(1, 1.0), 1.0), (Seat(1, 1.0), 2.0)], crowded=1.25) == pytest.approx([1.25, 2.25])
