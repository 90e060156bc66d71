"""How local workers are started: on which device, and with how much of its memory."""

from pathlib import Path
from typing import Any

import pytest
import trio

from hyperlane.cluster import local
from hyperlane.cluster.local import Local
from hyperlane.cluster.source import Surroundings
from hyperlane.worker.profile import Memory


class StartedError(Exception):
    """Carries the command of a worker that was to be started."""


def started(cluster: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int) -> dict[str, str]:
    """The options of the worker of that number."""

    async def refuse(command: list[str], **options: Any) -> None:
        raise StartedError(*command)

    monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    monkeypatch.setattr(local, "measure", lambda device: Memory(total_bytes=800, free_bytes=1, used_bytes=1))
    monkeypatch.setattr(local, "host_total_bytes", lambda: 900)
    devices = cluster.devices or ["cpu"] * cluster.workers
    with pytest.raises(StartedError) as caught:
        trio.run(cluster._start, index, devices, "c", tmp_path, tmp_path)
    words = [str(word) for word in caught.value.args]
    return {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}


def test_devices_take_a_worker_each_and_share_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Local(devices=["cuda:0", "cuda:0", "cpu"])
    found = [started(cluster, tmp_path, monkeypatch, index) for index in range(3)]
    assert [one["--device"] for one in found] == ["cuda:0", "cuda:0", "cpu"]
    assert [one["--memory-bytes"] for one in found] == ["400", "400", "900"]


def test_without_devices_workers_share_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = started(Local(workers=3), tmp_path, monkeypatch, 2)
    assert (found["--name"], found["--device"], found["--memory-bytes"]) == ("local-2", "cpu", "300")


def test_there_are_as_many_workers_as_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    async def start(index: int, devices: Any, *rest: Any) -> Any:
        names.append(f"{index} of {len(devices)}")
        if len(names) == len(devices):
            raise StartedError
        return None

    async def stop(processes: Any) -> None: ...

    async def opened() -> None:
        cluster = Local(workers=2, devices=["cuda:0"] * 3)
        monkeypatch.setattr(Local, "_start", lambda self, *args: start(*args))
        monkeypatch.setattr(local, "_stop", stop)
        async with cluster.open(Surroundings(store_root=tmp_path, log_folder=tmp_path)):
            pass

    with pytest.raises(StartedError):
        trio.run(opened)
    assert names == ["0 of 3", "1 of 3", "2 of 3"]
