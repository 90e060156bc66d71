"""When a worker counts as slow: for long, with a way back, and not again at once. Times are made up."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hyperlane.partition.slowness import Patience, Slowness

PATIENCE = Patience(above=1.5, after_s=5, pause_s=60)


def test_slow_for_long_enough_counts_at_what_it_mostly_took() -> None:
    slowness = Slowness(PATIENCE)
    for now_s, ratio in ((0, 1.0), (1, 4.0), (2, 3.0), (5, 2.0)):
        assert slowness.lasting(now_s) == {}
        slowness.observe(now_s, {"a": ratio, "b": 1.4})
    assert slowness.lasting(6) == {"a": 3.0}


def test_a_moment_of_slowness_is_forgotten() -> None:
    slowness = Slowness(PATIENCE)
    slowness.observe(0, {"a": 9.0})
    slowness.observe(4, {"a": 1.1})
    slowness.observe(6, {"a": 9.0})
    assert slowness.lasting(10) == {}
    assert slowness.lasting(11) == {"a": 9.0}


def test_who_is_slow_stays_so_until_half_of_the_way_back() -> None:
    slowness = Slowness(PATIENCE)
    for now_s, ratio in ((0, 2.0), (2, 1.3), (4, 2.0)):
        slowness.observe(now_s, {"a": ratio})
    assert slowness.lasting(5) == {"a": 2.0}
    slowness.observe(6, {"a": 1.2})
    assert slowness.lasting(7) == {}


def test_a_worker_without_steps_is_as_it_was() -> None:
    slowness = Slowness(PATIENCE)
    slowness.observe(0, {"a": 2.0})
    slowness.observe(3, {})
    assert slowness.lasting(5) == {"a": 2.0}


def test_after_an_answer_all_counts_anew_and_not_before_the_pause_is_over() -> None:
    slowness = Slowness(PATIENCE)
    slowness.observe(0, {"a": 2.0})
    slowness.answered(5)
    slowness.observe(6, {"a": 2.0})
    assert slowness.lasting(64) == {}
    assert slowness.lasting(65) == {"a": 2.0}


@given(st.lists(st.floats(0.1, 1.5), max_size=50))
def test_what_is_about_as_predicted_never_counts(ratios: list[float]) -> None:
    slowness = Slowness(PATIENCE)
    for now_s, ratio in enumerate(ratios):
        slowness.observe(now_s, {"a": ratio})
        assert slowness.lasting(now_s) == {}


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=80))
def test_answers_keep_their_distance(ratios: list[float]) -> None:
    slowness, answers = Slowness(PATIENCE), []
    for now_s, ratio in enumerate(ratios):
        slowness.observe(now_s, {"a": ratio})
        if found := slowness.lasting(now_s):
            assert found["a"] > PATIENCE.above
            answers.append(now_s)
            slowness.answered(now_s)
    gaps = [b - a for a, b in itertools.pairwise(answers)]
    assert all(gap >= PATIENCE.pause_s for gap in gaps)
    assert answers == [] or answers[0] >= PATIENCE.after_s
