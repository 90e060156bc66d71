"""Discovery between hosts: network namespaces on a bridge, workers and coordinator in different ones."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperlane.artifacts import Cluster, from_json
from tests.integration.namespaces import Lan, inside, open_lan
from tests.integration.processes import ROOT, WorkerProcess, start_worker, stop_worker

pytestmark = pytest.mark.namespaces

Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """Three hosts; the third has one more interface that leads nowhere."""
    lan = open_lan()
    try:
        for _ in range(3):
            lan.add_host()
        inside(lan.hosts[2], "link", "add", "blind0", "type", "bridge")
        inside(lan.hosts[2], "address", "add", "10.99.0.3/24", "dev", "blind0")
        inside(lan.hosts[2], "link", "set", "blind0", "up")
        yield lan
    finally:
        lan.close()


@pytest.fixture
def cluster() -> str:
    return f"t-{secrets.token_hex(4)}"


@pytest.fixture
def start(cluster: str, tmp_path: Path) -> Iterator[Start]:
    started: list[WorkerProcess] = []

    def start(namespace: str, *options: str) -> WorkerProcess:
        common = ("--cluster", cluster, "--store", str(tmp_path / "store"))
        started.append(start_worker(*common, *options, namespace=namespace))
        return started[-1]

    yield start
    for process in started:
        stop_worker(process)


def look(namespace: str, **lab: Any) -> subprocess.CompletedProcess[str]:
    """cluster=lab in a coordinator's namespace."""
    command = [sys.executable, "-m", "tests.integration.find", json.dumps(lab)]
    inside = ["ip", "netns", "exec", namespace]
    return subprocess.run([*inside, *command], cwd=ROOT, capture_output=True, text=True, timeout=30)


def find(namespace: str, **lab: Any) -> Cluster:
    looked = look(namespace, **lab)
    assert looked.returncode == 0, looked.stderr
    return from_json(Cluster, looked.stdout)


@pytest.mark.parametrize(("ci", "outcome"), [("1", "Failed"), ("", "Skipped")])
def test_without_root_it_is_skipped_but_never_in_ci(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BaseException, match="root is needed") as caught:  # pytest's outcomes are no Exceptions
        open_lan()
    assert type(caught.value).__name__ == outcome


def test_workers_of_other_hosts_are_found_and_names_stay_unique(lan: Lan, cluster: str, start: Start) -> None:
    workers = [start(host, "--allow-lan", "--name", "pi") for host in lan.hosts[1:]]
    for worker in workers:
        worker.wait_ready()
    found = find(lan.hosts[0], name=cluster, workers=2)
    assert [one.name for one in found.workers] == ["pi", "pi-2"]
    assert {one.control_address.partition(":")[0] for one in found.workers} == {"10.77.0.2", "10.77.0.3"}
    assert not found.rejected


def test_address_that_answers_is_used_and_every_address_is_kept(lan: Lan, cluster: str, start: Start) -> None:
    worker = start(lan.hosts[2], "--allow-lan").wait_ready()
    (found,) = find(lan.hosts[0], name=cluster, workers=1, probe_timeout_s=1.0).workers
    assert found.control_address == f"10.77.0.3:{worker.port('control')}"
    data_port = worker.port("data")
    assert found.data_addresses == (f"10.77.0.3:{data_port}", f"10.99.0.3:{data_port}")


def test_pinned_interface_is_the_only_one_announced(lan: Lan, cluster: str, start: Start) -> None:
    start(lan.hosts[2], "--allow-lan", "--interface", "eth0").wait_ready()
    (found,) = find(lan.hosts[0], name=cluster, workers=1, interface="eth0").workers
    assert [address.partition(":")[0] for address in found.data_addresses] == ["10.77.0.3"]


def test_worker_that_is_announced_but_unreachable_is_rejected_with_the_reason(
    lan: Lan, cluster: str, start: Start
) -> None:
    # Announced over every interface, but listening on the address that leads nowhere.
    start(lan.hosts[2], "--allow-lan", "--host", "10.99.0.3", "--name", "lost").wait_ready()
    looked = look(lan.hosts[0], name=cluster, workers=1, probe_timeout_s=1.0)
    assert looked.returncode == 1
    assert f"no usable worker of cluster '{cluster}'" in looked.stderr
    assert "lost (10.99.0.3:" in looked.stderr
    assert "cannot be reached" in looked.stderr


def test_worker_without_allow_lan_is_not_seen_from_another_host(lan: Lan, cluster: str, start: Start) -> None:
    start(lan.hosts[1], "--name", "shy").wait_ready()
    looked = look(lan.hosts[0], name=cluster, browse_timeout_s=1.0)
    assert looked.returncode == 1
    assert f"no worker of cluster '{cluster}' announced itself in 1 s; start one" in looked.stderr


def test_goodbye_is_heard_and_a_killed_worker_does_not_answer(lan: Lan, cluster: str, start: Start) -> None:
    gone, killed = (start(host, "--allow-lan") for host in lan.hosts[1:])
    gone.wait_ready()
    killed.wait_ready()
    assert len(find(lan.hosts[0], name=cluster, workers=2).workers) == 2
    gone.popen.terminate()
    killed.popen.kill()
    gone.popen.wait(10)
    killed.popen.wait(10)
    looked = look(lan.hosts[0], name=cluster, browse_timeout_s=1.0, probe_timeout_s=1.0)
    assert looked.returncode == 1
    assert f"no worker of cluster '{cluster}' announced itself in 1 s; start one" in looked.stderr
