"""cluster=local: workers started on this machine for one run, found by mDNS on loopback like any others."""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from hyperlane.artifacts import Cluster
from hyperlane.cluster.interfaces import LOOPBACK
from hyperlane.cluster.lab import Announced
from hyperlane.cluster.source import Surroundings
from hyperlane.errors import ClusterError, ConfigError, first_known
from hyperlane.transport.link import SPIN_US
from hyperlane.worker.profile import host_total_bytes, measure

STOP_TIMEOUT_S = 5.0


@dataclass(kw_only=True, slots=True)
class Local:
    """`workers` processes of `threads` compute threads each; the machine's memory is split among them."""

    workers: int = 2
    devices: list[str] = field(default_factory=list)  # one worker each, such as cuda:0; empty: `workers` on the CPU
    threads: int = 1
    interface: str | None = None  # loopback unless given
    start_timeout_s: float = 20.0
    probe_timeout_s: float = 2.0
    snapshot: str | None = None
    pin: bool = False
    spin_us: int = SPIN_US
    spinning: bool = False

    @asynccontextmanager
    async def open(self, surroundings: Surroundings) -> AsyncIterator["Started"]:
        if self.workers < 1:
            raise ConfigError(f"cluster.workers is {self.workers}; it must be at least 1")
        devices = self.devices or ["cpu"] * self.workers
        cluster = f"local-{secrets.token_hex(4)}"
        with tempfile.TemporaryDirectory(prefix="hyperlane-") as temporary:
            logs = surroundings.log_folder or Path(temporary)
            logs.mkdir(parents=True, exist_ok=True)
            processes: list[Process] = []
            try:
                for index in range(len(devices)):
                    process = await self._start(index, devices, cluster, surroundings.store_root, logs)
                    processes.append(process)
                yield Started(
                    Announced(
                        cluster,
                        self.interface,
                        len(devices),
                        self.start_timeout_s,
                        self.probe_timeout_s,
                        (LOOPBACK,),
                    ),
                    tuple(processes),
                )
            finally:
                with trio.CancelScope(shield=True):
                    await _stop(processes)

    async def _start(self, index: int, devices: Sequence[str], cluster: str, store_root: Path, logs: Path) -> "Process":
        name, device = f"local-{index}", devices[index]
        total_bytes = host_total_bytes() if device == "cpu" else measure(device).total_bytes
        options = {
            "--name": name,
            "--cluster": cluster,
            "--store": str(store_root),
            "--threads": str(self.threads),
            "--spin-us": str(self.spin_us),
            "--device": device,
            "--memory-bytes": str(total_bytes // devices.count(device)),
        }
        if self.interface is not None:
            options["--interface"] = self.interface
        cores = sorted(os.sched_getaffinity(0))
        if self.pin:
            options["--pin"] = ",".join(str(core) for core in self._cores(index, cores))
        if len(devices) * self.threads >= len(cores):
            options["--overlap"] = "off"  # no core is left for it
        command = [sys.executable, "-m", "hyperlane.worker", "--parent-stdin", *["--spinning"] * self.spinning]
        command += [word for option in options.items() for word in option]
        log = logs / f"{name}.log"
        with log.open("wb") as output:
            # A session of its own: Ctrl-C is for the coordinator, which then closes the workers' stdin.
            popen = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Process(name, popen, log)

    def _cores(self, index: int, cores: Sequence[int]) -> Sequence[int]:
        """A worker's own cores; where there are too few for all, they are shared in turns."""
        return [cores[(index * self.threads + thread) % len(cores)] for thread in range(self.threads)]


@dataclass(frozen=True, slots=True)
class Process:
    """One worker process and what it writes."""

    name: str
    popen: trio.Process
    log: Path

    async def fail_when_dead(self) -> None:
        """Returns never; raises ClusterError with the process's last words."""
        status = await self.popen.wait()
        lines = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        raise ClusterError(f"worker {self.name} ended with status {status}: {last}")


@dataclass(frozen=True, slots=True)
class Started:
    announced: Announced
    processes: tuple[Process, ...]

    async def find(self) -> Cluster:
        """Raises ClusterError as soon as one of the processes ends, or if not all of them can be used."""
        try:
            return await self._find_unless_dead()
        except BaseExceptionGroup as group:
            raise first_known(group) from group

    async def _find_unless_dead(self) -> Cluster:
        async with trio.open_nursery() as nursery:
            for process in self.processes:
                nursery.start_soon(process.fail_when_dead)
            cluster = await self.announced.find()
            nursery.cancel_scope.cancel()
        # Workers of other runs on this machine are seen too; that they are of another cluster is no news.
        own = tuple(one for one in cluster.rejected if not one.reason.startswith("belongs to cluster"))
        return replace(cluster, rejected=own)


async def _stop(processes: Sequence[Process]) -> None:
    """Close stdin, on which workers say goodbye and exit; kill those that do not."""
    async with trio.open_nursery() as nursery:
        for process in processes:
            nursery.start_soon(_stop_one, process.popen)


async def _stop_one(popen: trio.Process) -> None:
    assert popen.stdin is not None
    await popen.stdin.aclose()
    with trio.move_on_after(STOP_TIMEOUT_S):
        await popen.wait()
        return
    popen.kill()
    await popen.wait()
