"""How much memory a worker may use: of its device, its cgroup and its own `--memory-bytes`."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from hyperlane.errors import ConfigError
from hyperlane.transport.codec.device import cuda

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")
NVIDIA_SMI = ["nvidia-smi", "--query-gpu=memory.total,memory.used", "--format=csv,noheader,nounits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`free_bytes` is what can still be had; `used_bytes` is resident in this process."""

    total_bytes: int
    free_bytes: int
    used_bytes: int


def measure(device: str, cap_bytes: int | None = None) -> Memory:
    """The memory of `device` ("cpu" or "cuda:0"), at most `cap_bytes`; ConfigError for an unknown one."""
    used_bytes = psutil.Process().memory_info().rss
    total_bytes, free_bytes = _host_memory() if device == "cpu" else _gpu_memory(device)
    if cap_bytes is None or cap_bytes >= total_bytes:
        return Memory(total_bytes=total_bytes, free_bytes=free_bytes, used_bytes=used_bytes)
    # Workers that share a machine are capped to shares of it: each counts on its share of what is free.
    share_bytes = free_bytes * cap_bytes // total_bytes
    own_bytes = max(0, cap_bytes - (used_bytes if device == "cpu" else 0))
    return Memory(total_bytes=cap_bytes, free_bytes=min(own_bytes, share_bytes), used_bytes=used_bytes)


def host_total_bytes() -> int:
    """The memory of this machine or container."""
    return _host_memory()[0]


def cpu_share(threads: int) -> float:
    """Which share of its threads' time a CPU quota (cgroup v2 or v1) leaves this process."""
    return min([1.0, *(cores / threads for cores in _cpu_quotas(CGROUP_ROOT, CGROUP_MEMBERSHIP))])


def _cpu_quotas(root: Path, membership: Path) -> Iterator[float]:
    """In cores, of each cgroup that this process is in and that has one."""
    for folder in _cgroup_folders(root, membership, "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        with suppress(OSError, ValueError):
            quota_text, period_text = (folder / "cpu.max").read_text().split()
            quota, period = (None if quota_text == "max" else int(quota_text)), int(period_text)
        if quota is not None and period:  # -1: none
            yield quota / period


def _host_memory() -> tuple[int, int]:
    machine = psutil.virtual_memory()
    total_bytes, free_bytes = machine.total, machine.available
    for limit_bytes, used_bytes in _cgroup_limits():
        total_bytes = min(total_bytes, limit_bytes)
        free_bytes = min(free_bytes, max(0, limit_bytes - used_bytes))
    return total_bytes, free_bytes


def _cgroup_limits() -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of each cgroup (v2, or v1's memory controller) that this process is in."""
    for folder in _cgroup_folders(CGROUP_ROOT, CGROUP_MEMBERSHIP, "memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _read(folder / limit_name), _read(folder / used_name)
            if limit is not None and used is not None:
                yield limit, max(0, used - _reclaimable(folder))


def _cgroup_folders(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Those of a controller (v1), and of all of them (v2), from this process's own up to the root."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            base = root / controller if controllers else root
            folder = base / path.lstrip("/")
            yield from (at for at in (folder, *folder.parents) if at == base or base in at.parents)


def _reclaimable(folder: Path) -> int:
    """Page cache counts as used by a cgroup, but gives way."""
    try:
        rows = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(dict(rows).get("inactive_file", 0))
    except OSError:
        return 0


def _read(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max": no limit


def _gpu_memory(device: str) -> tuple[int, int]:
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index.isdigit():
        raise ConfigError(f"unknown device {device!r}; use cpu or cuda:0")
    module = cuda()
    if module is not None and int(index) < module.device_count():
        module.set_device(int(index))
        free_bytes, total_bytes = module.memory_info()
        return int(total_bytes), int(free_bytes)
    try:
        listed = subprocess.run([*NVIDIA_SMI, f"--id={index}"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"cannot use {device}: nvidia-smi does not list it ({error})") from error
    total_mib, used_mib = (int(cell) for cell in listed.stdout.split(","))
    return total_mib << 20, (total_mib - used_mib) << 20
