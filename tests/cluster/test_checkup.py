"""What `hyperlane doctor` finds: each fault by its own words, and nothing where all is well."""

from dataclasses import replace

import pytest

from hyperlane.artifacts import Cluster, LinkInfo, Rejected, WorkerInfo
from hyperlane.cluster.checkup import checkup
from tests.partition.test_optimal import worker

WELL = tuple(replace(worker(name, 1e10), operators=1) for name in "ab")
THERE = LinkInfo(source="a", target="b", latency_s=1e-4, bytes_per_s=1e8)
BACK = LinkInfo(source="b", target="a", latency_s=1e-4, bytes_per_s=1e8)
CLUSTER = Cluster(workers=WELL, links=(THERE, BACK))


def test_nothing_is_wrong() -> None:
    assert checkup(CLUSTER) == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(WELL[0], speeds=()), "not timed"),
        (replace(WELL[0], load=2.0), "busy: load 2"),
        (replace(WELL[0], share=0.25), "25 %"),
        (replace(WELL[0], memory_free_bytes=int(1e9)), "2 % of its memory"),
        (replace(WELL[0], operators=0), "compiled operators"),
        (replace(WELL[0], decode_factor=2.0), "2 times what was timed"),
    ],
)
def test_a_worker(changed: WorkerInfo, said: str) -> None:
    (found,) = checkup(replace(CLUSTER, workers=(changed, WELL[1])))
    assert found.subject == "a"
    assert said in found.problem
    assert found.advice


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ((replace(THERE, bytes_per_s=1e6), replace(BACK, bytes_per_s=1e6)), ["only 8 Mbit/s"] * 2),
        ((replace(THERE, bytes_per_s=2e7), BACK), ["5 times less than back"]),
        ((replace(THERE, latency_s=0.02), BACK), ["20 ms"]),
    ],
)
def test_a_link(links: tuple[LinkInfo, ...], said: list[str]) -> None:
    found = checkup(replace(CLUSTER, links=links))
    assert len(found) == len(said)
    assert all(text in one.problem for text, one in zip(said, found, strict=True))


def test_who_cannot_be_used_and_a_worker_alone() -> None:
    alone = Cluster(workers=WELL[:1], rejected=(Rejected(name="c", address="10.0.0.3:1", reason="version 0.0"),))
    rejected, lonely = checkup(alone)
    assert "version 0.0" in rejected.problem
    assert "one worker" in lonely.problem
