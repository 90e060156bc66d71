"""Time to the first token of a 512-token prompt over a shaped link: codecs against raw, and llama.cpp RPC.

Two network namespaces with a worker of one thread each, the coordinator in the first; `tc tbf` limits both ways.
Needs root. Each codec has workers and a coordinator of its own, which take turns over the same link; figures are
medians. Raw sends what the model computes, FP32. For the row "raw FP16" its turn has twice the rate: the bytes of
FP16 rows in the same time. A ratio above 1 says that ours is better.
"""

import argparse
import itertools
import json
import secrets
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.bench.engines import llama_rpc
from tests.bench.engines.engine import MissingError
from tests.bench.engines.ours import ROOT
from tests.bench.engines.shaped_lan import ADDRESSES, shape, shaped_lan
from tests.bench.row import Row, against
from tests.integration.namespaces import Lan
from tests.integration.processes import start_worker, stop_worker

PROMPT_TOKENS = 512
RATES = (1.0, 10.0, 100.0)
CODECS = ("int4", "auto", "raw")
RAW, HALF = "raw (FP32 rows)", "raw FP16"
OVERRIDES = (
    "security.allow_lan=true",
    "generate.raw_prompt=true",
    "generate.ignore_eos=true",
    "generate.context=1024",
    "generate.slots=1",
)


def run(args: Sequence[str]) -> list[Row]:
    options = _parse(args)
    with ExitStack() as exits:
        lan = exits.enter_context(shaped_lan())
        chains = {codec: exits.enter_context(_chain(lan)) for codec in CODECS}
        steady = {
            codec: exits.enter_context(_coordinator(lan, chains[codec], codec, options.overrides))
            for codec in CODECS
            if codec != "auto"
        }
        rows = []
        for mbit_s in options.rate:
            shape(lan, mbit_s)
            with _coordinator(lan, chains["auto"], "auto", options.overrides) as auto:
                rows += _measure(lan, mbit_s, {**steady, "auto": auto}, options)
        return rows


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench shaped")
    parser.add_argument("--rate", type=float, action="append", help="Mbit/s; may repeat; 1, 10 and 100")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each codec")
    parser.add_argument("--no-peer", action="store_true", help="without llama.cpp RPC")
    parser.add_argument("overrides", nargs="*", help="of ours, behind --")
    options = parser.parse_args(args)
    options.rate = options.rate or list(RATES)
    return options


@dataclass(slots=True)
class _Asked:
    """A coordinator process on the first host."""

    process: "subprocess.Popen[str]"
    carries: str
    _seeds: Iterator[int] = field(default_factory=itertools.count)

    def first_token_s(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{PROMPT_TOKENS} {next(self._seeds)}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


@contextmanager
def _chain(lan: Lan) -> Iterator[list[str]]:
    """A worker on each host; their control addresses."""
    cluster = f"bench-{secrets.token_hex(3)}"
    with ExitStack() as exits:
        workers = []
        for host, address in zip(lan.hosts, ADDRESSES, strict=True):
            options = ("--allow-lan", "--host", address, "--cluster", cluster, "--threads", "1", "--name", host)
            workers.append(start_worker(*options, namespace=host))
            exits.callback(stop_worker, workers[-1])
        for worker in workers:
            worker.wait_ready(60)
        yield [f"{address}:{w.port('control')}" for address, w in zip(ADDRESSES, workers, strict=True)]


@contextmanager
def _coordinator(lan: Lan, addresses: Sequence[str], codec: str, overrides: Sequence[str]) -> Iterator[_Asked]:
    words = [f"cluster.addresses=[{','.join(addresses)}]", f"transport/codec={codec}", *OVERRIDES, *overrides]
    command = ["ip", "netns", "exec", lan.hosts[0], sys.executable, "-m", "tests.bench.engines.ask", *words]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        carries = process.stdout.readline().strip()
        if not carries:
            raise SystemExit(f"no deployment with codec={codec}; see above")
        yield _Asked(process, carries)


def _measure(lan: Lan, mbit_s: float, asked: dict[str, _Asked], options: argparse.Namespace) -> list[Row]:
    def halved() -> float:
        shape(lan, 2 * mbit_s)
        try:
            return asked["raw"].first_token_s()
        finally:
            shape(lan, mbit_s)

    takers: dict[str, Callable[[], float]] = {
        "int4": asked["int4"].first_token_s,
        "auto": asked["auto"].first_token_s,
        RAW: asked["raw"].first_token_s,
        HALF: halved,
    }
    figures: dict[str, list[float]] = {name: [] for name in takers}
    for turn in range(options.repeat + 1):
        for name, take in takers.items():
            seconds = take()
            print(f"{mbit_s:g} Mbit/s: {name} {seconds:.3f} s", file=sys.stderr)
            if turn:  # the first one only warms up
                figures[name].append(seconds)
    found = {name: statistics.median(seconds) for name, seconds in figures.items()}
    return _rows(mbit_s, found, asked["auto"].carries, None if options.no_peer else _llama_s(lan, mbit_s))


def _rows(mbit_s: float, found: dict[str, float], carried: str, peer_s: float | None) -> list[Row]:
    compared = [("int4", HALF), ("int4", RAW), ("auto", HALF), ("auto", RAW), ("auto", "int4")]
    rows = [
        against(f"{mbit_s:g} Mbit/s, {ours}", found[ours], "s", other, found[other], more_is_better=False)
        for ours, other in compared
    ]
    rows.append(against(f"{mbit_s:g} Mbit/s, auto", found["auto"], "s", llama_rpc.NAME, peer_s, more_is_better=False))
    print(f"{mbit_s:g} Mbit/s: auto carries {carried}", file=sys.stderr)
    return rows


def _llama_s(lan: Lan, mbit_s: float, turns: int = 3) -> float | None:
    """Median time of llama.cpp's prompt, the model loaded before the link is shaped; None where it is missing."""
    shape(lan, 0)
    try:
        with ExitStack() as exits:
            inside = [["ip", "netns", "exec", host] for host in lan.hosts]
            servers = [llama_rpc.rpc_server(host, prefix) for host, prefix in zip(ADDRESSES, inside, strict=True)]
            addresses = [exits.enter_context(server)[1] for server in servers]
            streams = ",".join("1" for _ in range(turns + 2))
            command = [*inside[0], *llama_rpc.client(addresses, PROMPT_TOKENS, 1, streams)]
            process = exits.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            )
            assert process.stdout is not None
            figures: list[float] = []
            for line in process.stdout:
                if line.startswith("{"):
                    figures.append(json.loads(line)["t_pp"])
                    print(f"{mbit_s:g} Mbit/s: {llama_rpc.NAME} {figures[-1]:.3f} s", file=sys.stderr)
                    if len(figures) == 1:  # loaded
                        shape(lan, mbit_s)
            return statistics.median(figures[2:])  # the first was not shaped, the second not all of it
    except MissingError as missing:
        print(f"missing peer, its rows have no ratio: {missing}", file=sys.stderr)
        return None
    finally:
        shape(lan, mbit_s)
