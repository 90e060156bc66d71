"""Workers on hosts of their own: network namespaces with shaped links, and CPU quotas by cgroups of version 1."""

import contextlib
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.engines.shaped_lan import shape
from tests.integration.namespaces import Lan, inside
from tests.integration.processes import start_worker, stop_worker

CPU_CGROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 100_000


@dataclass(slots=True)
class Hosts:
    """`names[i]` is the worker of host i, `addresses[i]` its control address; the coordinator is on the first host."""

    lan: Lan
    names: tuple[str, ...]
    addresses: tuple[str, ...]

    def shape(self, mbit_s: float) -> None:
        """What each host may send; 0: anything."""
        shape(self.lan, mbit_s)

    @property
    def coordinator(self) -> list[str]:
        """What goes before a command that is to run there."""
        return entered(self.lan.hosts[0])

    def slow_link(self, source: int, target: int, mbit_s: float) -> None:
        """What `source` sends to `target`, and nothing else, takes a wire of its own of that rate."""
        a, b = self.lan.hosts[source], self.lan.hosts[target]
        inside(a, "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", b)
        for host in (a, b):
            inside(host, "link", "set", "eth1", "up")
        inside(a, "route", "add", f"10.77.0.{target + 1}/32", "dev", "eth1", "src", f"10.77.0.{source + 1}")
        limit = f"rate {mbit_s}mbit burst 3000b latency 200ms".split()
        command = ["tc", "-netns", a, "qdisc", "replace", "dev", "eth1", "root", "tbf", *limit]
        subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def hosts(quotas: Sequence[float]) -> Iterator[Hosts]:
    """A worker of one thread for each quota (a share of one core; 1: none), with an empty store of its own."""
    with ExitStack() as exits:
        lan = Lan()
        exits.callback(lan.close)
        try:
            lan.open()
            for _ in quotas:
                lan.add_host()
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"network namespaces cannot be made, root is needed: {error}") from error
        cluster = f"bench-{secrets.token_hex(3)}"
        store = exits.enter_context(tempfile.TemporaryDirectory(prefix="hyperlane-bench-"))
        workers = []
        for number, (host, quota) in enumerate(zip(lan.hosts, quotas, strict=True)):
            options = ["--allow-lan", "--host", f"10.77.0.{number + 1}", "--cluster", cluster, "--threads", "1"]
            options += ["--name", f"w{number}", "--store", str(Path(store) / host)]
            worker = start_worker(*options, before=entered(host))
            exits.callback(stop_worker, worker)
            if quota < 1:
                exits.enter_context(_held(worker.popen.pid, quota))
            workers.append(worker)
        for worker in workers:
            worker.wait_ready(60)
        yield Hosts(
            lan=lan,
            names=tuple(f"w{number}" for number in range(len(quotas))),
            addresses=tuple(f"10.77.0.{i + 1}:{w.port('control')}" for i, w in enumerate(workers)),
        )


def entered(host: str) -> list[str]:
    """A command's beginning that takes it into a namespace, and leaves it /sys with its cgroups."""
    return ["nsenter", f"--net=/run/netns/{host}"]


@contextmanager
def _held(pid: int, quota: float) -> Iterator[None]:
    """A process of a cgroup that may use `quota` of a core."""
    folder = CPU_CGROUPS / f"hyperlane-bench-{pid}"
    try:
        folder.mkdir()
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(int(quota * PERIOD_US)))
        (folder / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise SystemExit(f"no CPU quota can be set, root and cgroups of version 1 are needed: {error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (CPU_CGROUPS / "cgroup.procs").write_text(str(pid))
        with contextlib.suppress(OSError):
            folder.rmdir()
