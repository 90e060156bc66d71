"""Predicted against measured: decode steps and first tokens of real chains with CPU quotas and shaped links.

Each group has workers of its own and a coordinator that plans, deploys and measures once for each rate of the links;
the first time the links are not shaped, which sends the layers and teaches the calibration.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil

from tests.bench.engines.ours import ROOT
from tests.bench.planning.ask import Answer, Task
from tests.bench.planning.hosts import Hosts, hosts
from tests.bench.planning.models import LAYERS
from tests.bench.row import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One set of workers and one placement; `rates` in Mbit/s, none for a lone worker."""

    name: str
    model: str
    quotas: tuple[float, ...]
    cut: tuple[int, ...]  # layers of each worker
    rates: tuple[float, ...] = (1000.0, 100.0, 20.0)
    codec: str = "raw"
    prompt_tokens: int = 192


GROUPS = (
    Group(name="a", model="smollm2", quotas=(1.0, 1.0), cut=(15, 15)),
    Group(name="b", model="smollm2", quotas=(1.0, 0.5, 0.25), cut=(16, 9, 5)),
    Group(name="c", model="wide", quotas=(1.0, 0.5), cut=(5, 3), codec="h8"),
    Group(name="d", model="wide", quotas=(1.0, 0.5, 0.5), cut=(4, 2, 2)),
    Group(name="e", model="smollm2", quotas=(0.5,), cut=(30,), rates=()),
    Group(name="f", model="wide", quotas=(1.0,), cut=(8,), rates=()),
)
NEW_TOKENS, REPEAT, STREAMS = 128, 5, 4  # tokens: a step is a mean over many periods of a quota
OVERRIDES = ("generate.slots=4", "generate.context=512")


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration, predicted and measured."""

    group: Group
    mbit_s: float
    answer: Answer
    others: float  # cores that processes of others kept busy meanwhile: the figures are rough where that is much

    @property
    def name(self) -> str:
        rate = f"{self.mbit_s:g} Mbit/s" if self.mbit_s else "no link"
        quotas = "/".join(f"{quota:g}" for quota in self.group.quotas)
        return f"{self.group.model} {quotas} {self.group.codec}, {rate}"

    def errors(self, which: str) -> tuple[float, float]:
        """Relative errors of the step and of the first token; `which`: "predicted" or "calibrated"."""
        step_s, ttft_s = (getattr(self.answer, f"{which}_{what}_s") for what in ("step", "ttft"))
        return abs(step_s / self.answer.step_s - 1), abs(ttft_s / self.answer.ttft_s - 1)


def validate(names: Sequence[str], rates: Sequence[float]) -> list[Case]:
    """The cases of these groups and rates; all of them where none is named."""
    return [case for group in GROUPS if not names or group.name in names for case in _of_group(group, rates)]


def merged(earlier: Sequence[Case], cases: Sequence[Case]) -> list[Case]:
    """Of each configuration the case that was measured beside less other work, in the order of the groups."""
    found: dict[str, Case] = {}
    for case in (*earlier, *cases):
        known = found.get(case.name)
        if known is None or case.others <= known.others:
            found[case.name] = case
    order = [group.name for group in GROUPS]
    return sorted(found.values(), key=lambda case: (order.index(case.group.name), -case.mbit_s))


def read(path: Path) -> list[Case]:
    """Cases that `write` kept; none where there is no such file."""
    if not path.is_file():
        return []
    groups = {group.name: group for group in GROUPS}
    return [
        Case(groups[kept["group"]], kept["mbit_s"], Answer(**kept["answer"]), kept["others"])
        for kept in map(json.loads, path.read_text().splitlines())
    ]


def write(path: Path, cases: Sequence[Case]) -> None:
    """A line a case."""
    lines = [json.dumps({**asdict(case), "group": case.group.name}) for case in cases]
    path.write_text("\n".join(lines) + "\n")


def rows(cases: Sequence[Case]) -> list[Row]:
    """A row for each figure predicted, then the errors over all."""
    found = [row for case in cases for row in _case_rows(case)]
    for which, name in (("predicted", "error"), ("calibrated", "calibrated error")):
        errors = [error for case in cases for error in case.errors(which)]
        found.append(Row(what=f"median {name}", value=100 * median(errors), unit="%"))
        found.append(Row(what=f"worst {name}", value=100 * max(errors), unit="%"))
    return found


def table(cases: Sequence[Case]) -> str:
    """For the documentation: milliseconds, measured first."""
    heads = ["model, quotas, codec, link", "token", "predicted", "calibrated", "first token", "predicted", "calibrated"]
    heads += [f"{STREAMS} streams, s", "simulated", "cores busy for others"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for case in cases:
        a = case.answer
        cells = [a.step_s, a.predicted_step_s, a.calibrated_step_s, a.ttft_s, a.predicted_ttft_s, a.calibrated_ttft_s]
        streams = [f"{seconds:.3g}" for seconds in (a.streams_s, a.predicted_streams_s)]
        said = [f"{1e3 * cell:.3g}" for cell in cells] + streams + [f"{case.others:.1f}"]
        lines.append(f"| {' | '.join([case.name, *said])} |")
    return "\n".join(lines)


def _case_rows(case: Case) -> Iterator[Row]:
    answer = case.answer
    for what, measured_s, predicted_s in (
        ("step", answer.step_s, answer.predicted_step_s),
        ("first token", answer.ttft_s, answer.predicted_ttft_s),
        (f"{STREAMS} streams", answer.streams_s, answer.predicted_streams_s),
    ):
        yield Row(
            what=f"{case.name}: {what}",
            value=1e3 * measured_s,
            unit="ms",
            reference=1e3 * predicted_s,
            ratio=measured_s / predicted_s,
        )


def _of_group(group: Group, rates: Sequence[float]) -> Iterator[Case]:
    with hosts(group.quotas) as where, coordinator(where) as ask:
        task = _task(group, where)
        ask(task)
        if not group.rates:
            yield _said(Case(group, 0.0, *_beside_others(ask, task)))
        for mbit_s in [rate for rate in group.rates if not rates or rate in rates]:
            where.shape(mbit_s)
            yield _said(Case(group, mbit_s, *_beside_others(ask, task)))


def _beside_others(ask: Callable[[Task], Answer], task: Task) -> tuple[Answer, float]:
    """The answer, and how many cores processes that are not ours kept busy."""
    ours = psutil.Process().children(recursive=True)

    def spent_s() -> float:
        times = psutil.cpu_times()
        own = sum(sum(process.cpu_times()[:2]) for process in ours)
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - own)

    begin_s, before_s = time.monotonic(), spent_s()
    answer = ask(task)
    return answer, (spent_s() - before_s) / (time.monotonic() - begin_s)


def _task(group: Group, where: Hosts) -> Task:
    assert sum(group.cut) == LAYERS[group.model]
    words = [
        f"cluster.addresses=[{','.join(where.addresses)}]",
        "partition=manual",
        f"partition.layers=[{','.join(map(str, group.cut))}]",
        f"partition.workers=[{','.join(where.names)}]",
        f"transport/codec={group.codec}",
        *OVERRIDES,
    ]
    return Task(
        model=group.model,
        overrides=words,
        prompt_tokens=group.prompt_tokens,
        new_tokens=NEW_TOKENS,
        repeat=REPEAT,
        streams=STREAMS,
    )


@contextmanager
def coordinator(where: Hosts) -> Iterator[Callable[[Task], Answer]]:
    """A process on the first host: Task -> Answer."""
    command = [*where.coordinator, sys.executable, "-m", "tests.bench.planning.ask"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        send, answers = process.stdin, process.stdout

        def ask(task: Task) -> Answer:
            send.write(json.dumps(asdict(task)) + "\n")
            send.flush()
            line = answers.readline()
            if not line:
                raise SystemExit("the coordinator ended; see above")
            return Answer(**json.loads(line))

        yield ask


def _said(case: Case) -> Case:
    a = case.answer
    for stage in a.stages:
        print(f"{case.name}: {stage}", file=sys.stderr)
    print(
        f"{case.name}: step {1e3 * a.step_s:.4g} ms ({1e3 * a.predicted_step_s:.4g}, {1e3 * a.calibrated_step_s:.4g}), "
        f"first {1e3 * a.ttft_s:.4g} ms ({1e3 * a.predicted_ttft_s:.4g}, {1e3 * a.calibrated_ttft_s:.4g}), "
        f"{STREAMS} streams {a.streams_s:.4g} s ({a.predicted_streams_s:.4g}); {case.others:.2g} cores busy for others",
        file=sys.stderr,
    )
    return case
