"""What a worker's command line makes of cores and waiting."""

import os

import pytest

from hyperlane.errors import ConfigError
from hyperlane.worker.options import parse, parse_cores

CORES = sorted(os.sched_getaffinity(0))


def test_cores_are_numbers_and_ranges() -> None:
    assert parse_cores(",".join(map(str, CORES))) == frozenset(CORES)
    assert parse(["--pin", f"{CORES[0]}-{CORES[0]}"]).cores == {CORES[0]}
    assert parse([]).cores == frozenset()


@pytest.mark.parametrize("text", ["", "a", "1-x", "99999", "-1", "0;1"])
def test_cores_that_are_none_of_ours_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--pin is"):
        parse(["--pin", text])


def test_steps_overlap_where_a_core_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    assert parse(["--threads", "3"]).overlaps
    assert not parse(["--threads", "4"]).overlaps
    assert not parse(["--threads", "1", "--pin", "2"]).overlaps
    assert parse(["--threads", "4", "--overlap", "on"]).overlaps
    assert not parse(["--threads", "1", "--overlap", "off"]).overlaps


def test_a_negative_wait_is_refused() -> None:
    with pytest.raises(ConfigError, match="--spin-us is -1"):
        parse(["--spin-us", "-1"])
