"""Discovery on loopback, with real mDNS."""

import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from zeroconf import Zeroconf

from hyperlane.cluster import announce
from hyperlane.cluster.announce import Announcement, Entry
from hyperlane.cluster.browse import Heard, browse
from hyperlane.cluster.lab import Lab
from hyperlane.cluster.local import Local
from hyperlane.cluster.source import Surroundings
from hyperlane.errors import ClusterError, ConfigError
from tests.cluster.entries import make_entry

LOOPBACK = "127.0.0.1"
Announce = Callable[[Entry], Any]


@pytest.fixture
def cluster() -> str:
    return f"t-{secrets.token_hex(4)}"


@asynccontextmanager
async def announced(*entries: Entry) -> AsyncIterator[list[Announcement]]:
    """All announced at once, each by a responder of its own."""
    made: list[Announcement] = []

    async def one(entry: Entry) -> None:
        made.append(await trio.to_thread.run_sync(Announcement, entry, None))

    async with AsyncExitStack() as stack:
        async with trio.open_nursery() as nursery:
            for entry in entries:
                nursery.start_soon(one, entry)
        for announcement in made:
            stack.push_async_callback(trio.to_thread.run_sync, announcement.close)
        yield made


async def heard(cluster: str, expected: int | None = None, window_s: float = 10.0) -> Heard:
    with trio.fail_after(window_s + 5):
        return await browse(cluster, window_s, interface=LOOPBACK, expected=expected)


def of(cluster: str, result: Heard) -> list[Entry]:
    return [entry for entry in result.entries if entry.cluster == cluster]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_announced_worker_is_heard_whole_until_it_says_goodbye(cluster: str) -> None:
    entry = make_entry(cluster=cluster, identity=f"w#{secrets.token_hex(4)}", device="cuda:0")
    async with announced(entry):
        assert of(cluster, await heard(cluster, 1)) == [entry]
    assert of(cluster, await heard(cluster, 1, window_s=1.0)) == []


async def test_free_memory_is_updated(cluster: str) -> None:
    entry = make_entry(cluster=cluster, identity=f"w#{secrets.token_hex(4)}")
    async with announced(entry) as (announcement,):
        await trio.to_thread.run_sync(announcement.update_free, 5)
        assert of(cluster, await heard(cluster, 1)) == [replace(entry, memory_free_bytes=5)]


async def test_name_collision_gives_a_new_name_everywhere(cluster: str) -> None:
    entries = [make_entry(cluster=cluster, identity=f"w#{secrets.token_hex(4)}") for _ in range(2)]
    async with announced(*entries) as announcements:
        assert sorted(one.entry.name for one in announcements) == ["w", "w-2"]
        found = of(cluster, await heard(cluster, 2))
    assert sorted(entry.name for entry in found) == ["w", "w-2"]
    assert {entry.identity for entry in found} == {entry.identity for entry in entries}
    assert {entry.instance for entry in found} == {f"{name}@{cluster}._hyperlane._tcp.local." for name in ("w", "w-2")}


async def test_name_taken_in_the_same_instant_is_given_up_by_one(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprobed(Zeroconf):
        """Registers `w` without looking who has it, as two hosts do that start together."""

        def register_service(self, info: Any, **options: Any) -> None:
            blind = info.name.startswith("w@")
            super().register_service(info, cooperating_responders=blind, **options)

    monkeypatch.setattr(announce, "Zeroconf", Unprobed)
    entries = [make_entry(cluster=cluster, identity=f"w#{number}{secrets.token_hex(4)}") for number in (2, 1)]
    async with announced(*entries) as announcements:
        names = {one.entry.identity: one.entry.name for one in announcements}
        found = of(cluster, await heard(cluster, 2))
    assert names == {entries[0].identity: "w-2", entries[1].identity: "w"}
    assert {entry.identity: entry.name for entry in found} == names


async def test_lab_tells_whom_it_saw_and_why_they_do_not_count(cluster: str) -> None:
    other = make_entry("a", cluster=f"{cluster}-x", identity=f"a#{secrets.token_hex(4)}")
    old = make_entry("b", cluster=cluster, version=99, identity=f"b#{secrets.token_hex(4)}")
    dead = make_entry("c", cluster=cluster, control_port=1, identity=f"c#{secrets.token_hex(4)}")
    lab = Lab(name=cluster, interface=LOOPBACK, browse_timeout_s=5.0, probe_timeout_s=1.0)
    async with announced(other, old, dead), lab.open(Surroundings(store_root=Path("unused"))) as finder:
        with pytest.raises(ClusterError) as caught:
            await finder.find()
    message = str(caught.value)
    assert message.startswith(f"no usable worker of cluster '{cluster}' answered in 5 s; rejected: ")
    assert f"a (127.0.0.1:7070): belongs to cluster '{cluster}-x', not '{cluster}'" in message
    assert "b (127.0.0.1:7070): speaks protocol version 99, not 3" in message
    assert "c (127.0.0.1:1): worker c at 127.0.0.1:1 cannot be reached" in message


async def test_nobody_there_is_told_after_the_window(cluster: str) -> None:
    lab = Lab(name=cluster, interface=LOOPBACK, browse_timeout_s=0.5)
    async with lab.open(Surroundings(store_root=Path("unused"))) as finder:
        with pytest.raises(ClusterError, match=f"'{cluster}'.* in 0.5 s"):
            await finder.find()


async def test_unknown_interface_is_refused(cluster: str) -> None:
    async with Lab(name=cluster, interface="nope0").open(Surroundings(store_root=Path("unused"))) as finder:
        with pytest.raises(ConfigError, match="there is no interface 'nope0'"):
            await finder.find()


async def test_local_workers_live_until_the_context_closes(tmp_path: Path) -> None:
    surroundings = Surroundings(store_root=tmp_path / "store", log_folder=tmp_path / "logs")
    with trio.fail_after(40):
        async with Local(workers=2).open(surroundings) as started:
            cluster = await started.find()
            again = await started.find()
            pids = [process.popen.pid for process in started.processes]
    assert [one.name for one in cluster.workers] == ["local-0", "local-1"]
    assert [one.name for one in again.workers] == ["local-0", "local-1"]
    assert {one.control_address.partition(":")[0] for one in cluster.workers} == {LOOPBACK}
    assert len({one.memory_total_bytes for one in cluster.workers}) == 1
    assert not any(map(is_alive, pids))
    assert "goodbye" in await trio.Path(tmp_path / "logs" / "local-1.log").read_text()


async def test_local_worker_that_dies_at_start_is_quoted(tmp_path: Path) -> None:
    async with Local(workers=2, threads=0).open(Surroundings(store_root=tmp_path)) as started:
        with (
            trio.fail_after(15),
            pytest.raises(ClusterError, match=r"worker local-\d ended with status 2: .*--threads is 0"),
        ):
            await started.find()


async def test_local_without_workers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cluster.workers is 0; it must be at least 1"):
        async with Local(workers=0).open(Surroundings(store_root=tmp_path)):
            pass


async def test_cancelling_the_start_leaves_no_process(tmp_path: Path) -> None:
    pids: list[int] = []
    with trio.move_on_after(0.2) as scope:
        async with Local(workers=2).open(Surroundings(store_root=tmp_path)) as started:
            pids += [process.popen.pid for process in started.processes]
            await started.find()
    assert scope.cancelled_caught
    assert len(pids) == 2
    assert not any(map(is_alive, pids))
