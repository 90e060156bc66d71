"""How much memory a worker counts on."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hyperlane.errors import ConfigError
from hyperlane.worker import profile
from hyperlane.worker.profile import measure

GIB = 1 << 30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of 16 GiB, 8 of them free, whose cgroups are files under the folder that is returned."""
    memory = SimpleNamespace(total=16 * GIB, available=8 * GIB)
    monkeypatch.setattr(profile.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(profile, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(profile, "CGROUP_MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def write(folder: Path, **files: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_whole_machine_without_cgroups(machine: Path) -> None:
    memory = measure("cpu")
    assert (memory.total_bytes, memory.free_bytes) == (16 * GIB, 8 * GIB)
    assert 0 < memory.used_bytes < 16 * GIB


def test_tightest_cgroup_above_the_process_counts(machine: Path) -> None:
    write(machine, membership="0::/slice/worker")
    write(machine / "slice", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=f"inactive_file {GIB}")
    write(machine / "slice" / "worker", memory__max="max", memory__current=GIB)
    memory = measure("cpu")
    assert (memory.total_bytes, memory.free_bytes) == (4 * GIB, 2 * GIB)


def test_cgroup_v1_counts_too(machine: Path) -> None:
    write(machine, membership="5:memory:/not/visible/here\n3:cpu:/")
    write(machine / "memory", memory__limit_in_bytes=2 * GIB, memory__usage_in_bytes=GIB)
    memory = measure("cpu")
    assert (memory.total_bytes, memory.free_bytes) == (2 * GIB, GIB)


def test_cap_is_a_share_of_what_is_free(machine: Path) -> None:
    memory = measure("cpu", 4 * GIB)
    assert memory.total_bytes == 4 * GIB
    assert memory.free_bytes == 2 * GIB  # a quarter of the machine gets a quarter of its 8 GiB


def test_cap_less_than_what_is_used_leaves_nothing(machine: Path) -> None:
    assert measure("cpu", 1).free_bytes == 0


def test_cap_above_the_machine_changes_nothing(machine: Path) -> None:
    assert measure("cpu", 64 * GIB).total_bytes == 16 * GIB


def test_gpu_is_asked_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> SimpleNamespace:
        assert command[-1] == "--id=1"
        return SimpleNamespace(stdout="81559, 1559\n")

    monkeypatch.setattr(subprocess, "run", run)
    memory = measure("cuda:1")
    assert (memory.total_bytes, memory.free_bytes) == (81559 << 20, 80000 << 20)


@pytest.mark.parametrize("device", ["tpu", "cuda", "cuda:x", ""])
def test_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="use cpu or cuda:0"):
        measure(device)


def test_machine_without_that_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "NVIDIA_SMI", ["/no/such/nvidia-smi"])
    with pytest.raises(ConfigError, match="cannot use cuda:0: nvidia-smi does not list it"):
        measure("cuda:0")


def test_a_cpu_quota_is_a_share_of_the_threads(machine: Path) -> None:
    assert profile.cpu_share(4) == 1.0
    write(machine, membership="0::/slice/worker")
    write(machine / "slice", cpu__max="150000 100000")
    write(machine / "slice" / "worker", cpu__max="max 100000")
    assert profile.cpu_share(2) == 0.75
    assert profile.cpu_share(1) == 1.0


def test_a_cpu_quota_of_cgroup_v1_counts_too(machine: Path) -> None:
    write(machine, membership="5:memory:/\n3:cpu,cpuacct:/w")
    write(machine / "cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    write(machine / "cpu" / "w", cpu__cfs_quota_us=25000, cpu__cfs_period_us=100000)
    assert profile.cpu_share(1) == 0.25
