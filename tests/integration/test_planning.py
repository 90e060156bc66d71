"""partition=optimal as a user runs it: measured, predicted, explained; and over machines that do not exist."""

from pathlib import Path

import pytest

from tests.integration.cli import error_of, hyperlane


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def test_workers_are_measured_and_the_plan_says_why(store: Path, tmp_path: Path) -> None:
    done = hyperlane(
        "model=tiny",
        "transport/codec=raw",
        "partition=optimal",
        "explain=true",
        "generate.context=128",
        "generate.max_new_tokens=4",
        cwd=tmp_path,
        store=store,
    )
    cluster, plan = done.artifact("discover", "cluster.json"), done.artifact("plan", "plan.json")
    assert {(link["source"], link["target"]) for link in cluster["links"]} == {
        ("local-0", "local-1"),
        ("local-1", "local-0"),
    }
    for worker in cluster["workers"]:
        assert {time["phase"] for time in worker["speeds"][0]["times"]} == {"decode", "prefill"}
        assert worker["machine"]
    predicted = plan["predicted"]
    assert predicted["measured"]
    assert predicted["step_s"] == pytest.approx(predicted["compute_s"] + predicted["wire_s"], rel=0.01)
    assert plan["bound"] == pytest.approx(plan["objective"])
    assert "proven best" in (done.folder / "plan" / "explain.txt").read_text()
    assert "proven best" in done.err


def test_a_recorded_cluster_gives_the_same_plan(store: Path, tmp_path: Path) -> None:
    common = ("model=tiny", "partition=optimal", "stages=[discover,plan]", "generate.context=128")
    first = hyperlane(*common, cwd=tmp_path, store=store)
    snapshot = first.folder / "discover" / "cluster.json"
    again = hyperlane(*common, f"cluster.snapshot={snapshot}", cwd=tmp_path, store=store)
    assert again.artifact("plan", "plan.json") == first.artifact("plan", "plan.json")


def test_machines_that_do_not_exist_can_be_planned_with(store: Path, tmp_path: Path) -> None:
    common = ("model=tiny", "cluster=simulated", "partition=optimal")
    load = ("simulate.requests=12", "simulate.prompt_tokens=64", "simulate.new_tokens=16", "simulate.replicas=0")
    done = hyperlane(*common, *load, "stages=[discover,plan,simulate]", cwd=tmp_path, store=store)
    simulation = done.artifact("simulate", "simulation.json")
    assert sum(chain["requests"] for chain in simulation["replicas"]) == simulation["requests"] == 12
    assert len(simulation["replicas"]) == 4
    assert "12 requests in" in done.err
    assert len(done.artifact("discover", "cluster.json")["workers"]) == 4
    refused = hyperlane(*common, cwd=tmp_path, store=store)
    assert "cluster=simulated has no machines to run on; give stages=[discover,plan,simulate]" in error_of(refused)


def test_the_doctor_looks_at_workers_links_and_the_model(store: Path, tmp_path: Path) -> None:
    done = hyperlane(
        "doctor", "model=tiny", "generate.context=128", "partition.reserve=0.999999", cwd=tmp_path, store=store
    )
    findings = done.artifact("doctor", "checkup.json")["findings"]
    assert any("does not fit" in one["problem"] for one in findings)
    assert "local-0 -> local-1" in done.out
    assert "does not fit" in done.out
