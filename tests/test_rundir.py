"""Stamps, resume and what a damaged folder says."""

import errno
import json
from pathlib import Path

import pytest

from hyperlane.artifacts import Cluster, WorkerInfo, digest, from_json, to_json
from hyperlane.errors import StoreError
from hyperlane.rundir import RunDir, write_atomic, write_run_json


def cluster(free_bytes: int = 1, name: str = "w0") -> Cluster:
    worker = WorkerInfo(
        name=name,
        device="cpu",
        memory_total_bytes=2,
        memory_free_bytes=free_bytes,
        control_address="127.0.0.1:1",
        data_addresses=("127.0.0.1:2",),
        latency_s=0.5,
    )
    return Cluster(workers=(worker,))


def test_json_round_trip() -> None:
    assert from_json(Cluster, to_json(cluster())) == cluster()


def test_measured_fields_stay_out_of_the_digest() -> None:
    assert digest(cluster(1)) == digest(cluster(2))
    assert digest(cluster()) != digest(cluster(name="w1"))


def test_a_stage_is_done_when_its_inputs_and_its_artifact_are_unchanged(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert not run_dir.done("discover", {"config": "a"})
    run_dir.save("discover", "cluster.json", cluster(), {"config": "a"})
    assert run_dir.done("discover", {"config": "a"})
    assert not run_dir.done("discover", {"config": "b"})
    assert run_dir.load("discover", "cluster.json", Cluster) == cluster()
    (tmp_path / "discover" / "cluster.json").write_text("{}")
    assert not run_dir.done("discover", {"config": "a"})


def test_what_is_known_later_leaves_a_stage_done(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.save("discover", "cluster.json", cluster(1), {"config": "a"})
    run_dir.revise("discover", "cluster.json", cluster(2))
    assert run_dir.load("discover", "cluster.json", Cluster) == cluster(2)
    assert run_dir.done("discover", {"config": "a"})
    (tmp_path / "discover" / "stamp.json").unlink()
    run_dir.revise("discover", "cluster.json", cluster(1))
    assert run_dir.load("discover", "cluster.json", Cluster) == cluster(1)
    assert not run_dir.done("discover", {"config": "a"})


def test_without_its_stamp_a_stage_is_not_done(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.save("discover", "cluster.json", cluster(), {})
    (tmp_path / "discover" / "stamp.json").unlink()
    assert not run_dir.done("discover", {})


@pytest.mark.parametrize("content", [None, "{", "{}", '{"workers": 3}'])
def test_a_missing_or_damaged_artifact_names_file_and_stage(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "discover" / "cluster.json"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    with pytest.raises(StoreError, match=r"cluster\.json is .*stages=\[discover"):
        RunDir(tmp_path).load("discover", "cluster.json", Cluster)


def test_a_failed_write_leaves_the_old_content_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_run_json_has_what_verify_needs(tmp_path: Path) -> None:
    write_run_json(RunDir(tmp_path), "c", 0, {"cluster": "1"}, {"plan": "2"})
    record = json.loads((tmp_path / "run.json").read_text())
    assert record.keys() >= {"config_sha256", "versions", "git_commit", "inputs", "outputs"}
