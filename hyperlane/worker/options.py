"""The command line of hyperlane-worker."""

import argparse
import importlib.util
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperlane.cluster.announce import check_name
from hyperlane.cluster.interfaces import LOOPBACK, addresses_of, lan_addresses
from hyperlane.errors import ConfigError
from hyperlane.transport.link import SPIN_US

DEFAULT_STORE = "~/.cache/hyperlane"
GPU_SPIN_US = 20_000  # a step takes that long; a core waits for the GPU anyway
SPIN_HELP = (
    "where frames come that fast, wait for the next one busily so many microseconds "
    f"(default: {SPIN_US}, with a GPU {GPU_SPIN_US})"
)
QUEUE_DEPTH = 8  # frames that may wait in a worker's link
PINNED_FRAMES = 12
PINNED_HELP = (
    f"frames that have room in pinned memory at each end of a GPU, more than wait in a link (default: {PINNED_FRAMES})"
)
OVERLAP_HELP = "decode and send in a second thread (default: where there are more cores than compute threads)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    name: str
    cluster: str
    interface: str | None
    host: str | None
    control_port: int
    data_port: int
    threads: int
    store: Path
    memory_bytes: int | None
    device: str
    allow_lan: bool
    parent_stdin: bool
    pin: str | None = None
    spin_us: int = SPIN_US
    spinning: bool = False
    overlap: str = "auto"
    pinned_frames: int = PINNED_FRAMES
    all_gpus: bool = False
    no_cuda_graphs: bool = False

    @property
    def cores(self) -> frozenset[int]:
        """The cores to keep to; empty for any. ConfigError for what is no list of cores of this machine."""
        return frozenset() if self.pin is None else parse_cores(self.pin)

    @property
    def overlaps(self) -> bool:
        """Whether to decode and send beside the compute: by default where a core is left for it."""
        if self.overlap == "auto":
            return len(self.cores or os.sched_getaffinity(0)) > self.threads
        return self.overlap == "on"

    @property
    def bind_host(self) -> str:
        """The address to listen on."""
        if self.host is not None:
            return self.host
        if not self.allow_lan:
            return LOOPBACK
        return "0.0.0.0" if self.interface is None else addresses_of(self.interface)[0]

    @property
    def announced_hosts(self) -> tuple[str, ...]:
        """The addresses at which others reach this worker."""
        if self.bind_host != "0.0.0.0":
            return (self.bind_host,)
        return tuple(addresses_of(self.interface) if self.interface else lan_addresses()) or (LOOPBACK,)


def parse(argv: Sequence[str] | None) -> Options:
    """Raises ConfigError for values that cannot work; argparse itself exits with 2 on malformed ones."""
    given = vars(_parser().parse_args(argv))
    if given["spin_us"] is None:
        given["spin_us"] = GPU_SPIN_US if given["device"].startswith("cuda") else SPIN_US
    options = Options(**{**given, "store": Path(given["store"]).expanduser()})
    check_name(options.name)
    check_name(options.cluster)
    if not options.allow_lan and not options.bind_host.startswith("127."):
        raise ConfigError(
            f"--host {options.bind_host} lets others reach this worker, and nothing authenticates them; "
            "give --allow-lan too if that is what you want"
        )
    if options.interface is not None:
        addresses_of(options.interface)
    for flag, port in (("--control-port", options.control_port), ("--data-port", options.data_port)):
        if not 0 <= port <= 65535:
            raise ConfigError(f"{flag} is {port}; give 1 to 65535, or 0 for any free port")
    if options.memory_bytes is not None and options.memory_bytes < 1 << 20:
        raise ConfigError(f"--memory-bytes is {options.memory_bytes}; give at least 1048576 (1 MiB)")
    if options.threads < 1:
        raise ConfigError(f"--threads is {options.threads}; it must be at least 1")
    if importlib.util.find_spec("onnxruntime") is None:  # said now, not once a shard has arrived
        raise ConfigError("onnxruntime is missing; pip install 'hyperlane[cpu]', or 'hyperlane[gpu]' for an NVIDIA GPU")
    if options.pinned_frames <= QUEUE_DEPTH:
        raise ConfigError(f"--pinned-frames is {options.pinned_frames}; a link queues {QUEUE_DEPTH}, give more")
    if options.spin_us < 0:
        raise ConfigError(f"--spin-us is {options.spin_us}; give 0 (sleep at once) or more")
    if options.pin is not None:
        parse_cores(options.pin)
    return options


def parse_cores(text: str) -> frozenset[int]:
    """Cores such as "0,2-3"; ConfigError where they are malformed or not this process's to use."""
    cores: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            cores |= set(range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise ConfigError(f"--pin is {text!r}; give cores such as 0,2-3") from error
    usable = os.sched_getaffinity(0)
    if not cores or not cores <= usable:
        raise ConfigError(f"--pin is {text!r}; this process may use the cores {', '.join(map(str, sorted(usable)))}")
    return frozenset(cores)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hyperlane-worker", description="Offer this machine to a Hyperlane cluster.")
    add = parser.add_argument
    add("--name", default=_default_name(), help="default: this machine's name; made unique within the cluster")
    add("--cluster", default="lab", help="the cluster to belong to (default: lab)")
    add("--interface", help="announce and listen on this interface only (its name or address)")
    add("--host", help="the address to listen on (default: loopback; with --allow-lan every address)")
    add("--control-port", type=int, default=0, metavar="PORT", help="default: any free port")
    add("--data-port", type=int, default=0, metavar="PORT", help="default: any free port")
    add("--threads", type=int, default=os.cpu_count() or 1, help="compute threads (default: all cores)")
    store = os.environ.get("HYPERLANE_STORE", DEFAULT_STORE)
    add("--store", default=store, metavar="FOLDER", help=f"the layer store (default: {store})")
    add("--memory-bytes", type=int, metavar="N", help="use at most so much memory")
    add("--device", default="cpu", help="cpu, or cuda:N for the GPU of that number (default: cpu)")
    add("--pin", metavar="CORES", help="keep to these cores, such as 0,2-3 (default: any)")
    add("--spin-us", type=int, default=None, metavar="N", help=SPIN_HELP)
    add("--spinning", action="store_true", help="compute threads wait busily: faster alone, slower with neighbours")
    add("--overlap", choices=("auto", "on", "off"), default="auto", help=OVERLAP_HELP)
    add("--all-gpus", action="store_true", help="one worker for each GPU of this machine, named NAME-0, NAME-1, ...")
    add("--no-cuda-graphs", action="store_true", help="launch each kernel of a decode step by itself")
    add("--pinned-frames", type=int, default=PINNED_FRAMES, metavar="N", help=PINNED_HELP)
    add("--allow-lan", action="store_true", help="let other machines use this worker, without authentication")
    add("--parent-stdin", action="store_true", help="exit when standard input closes")
    return parser


def _default_name() -> str:
    allowed = (char if char.isalnum() and char.isascii() else "-" for char in socket.gethostname().split(".")[0])
    return "".join(allowed).strip("-")[:26] or "worker"
