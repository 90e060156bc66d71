"""The planner: is the exact search exact, how fast is it, how near come its bounds, and how near its predictions?

`--only` measures some of it: exact, scaled, validation, unequal. `--instances N --large N` say how many random problems
are compared with brute force; `--group` and `--rate` which configurations are validated, and `--cases FILE` puts
several such runs together, of each configuration the one that had the machine most to itself. Validation and unequal
start workers in network namespaces under CPU quotas, and need root.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hyperlane.artifacts import Cluster, ModelSpec
from hyperlane.partition.memory import Workload
from hyperlane.partition.optimal import Objective, Optimal
from hyperlane.partition.subsets import best_chain
from tests.bench.planning.unequal import unequal
from tests.bench.planning.validate import GROUPS, merged, read, rows, table, validate, write
from tests.bench.row import Row, compared
from tests.partition.brute import least_value
from tests.partition.clusters import racks, shapes
from tests.partition.instances import small_goal

WORKLOAD = Workload(slots=8, context=4096, prefill_chunk=256, prompt_tokens=1024, codecs=("raw",))
SOLVES = 100_000
ONLY = ("exact", "scaled", "validation", "unequal")


def run(args: Sequence[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench plan")
    parser.add_argument("--only", choices=ONLY, action="append", help="may repeat; all")
    parser.add_argument("--instances", type=int, default=10_000, help="of up to 4 workers and 12 layers")
    parser.add_argument("--large", type=int, default=100, help="of 6 workers and 24 layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", choices=[group.name for group in GROUPS], action="append", help="may repeat; all")
    parser.add_argument("--rate", type=float, action="append", help="Mbit/s, of the validation; may repeat; all")
    parser.add_argument("--cases", type=Path, help="the validation's cases: those of the file count too")
    chosen = parser.parse_args(args)
    only, found = chosen.only or ONLY, []
    if "exact" in only:
        found += _exact(chosen.instances, chosen.large, chosen.seed)
    if "scaled" in only:
        found += _scaled()
    if "validation" in only:
        cases = validate(chosen.group or [], chosen.rate or [])
        if chosen.cases:
            cases = merged(read(chosen.cases), cases)
            write(chosen.cases, cases)
        print(table(cases), file=sys.stderr)
        found += rows(cases)
    if "unequal" in only:
        found += unequal()
    return found


def _exact(small: int, large: int, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    equal = 0
    for index in range(small + large):
        if index < small:
            size = int(rng.integers(1, 5)), int(rng.integers(1, 13)), int(rng.integers(1, 4))
        else:
            size = 6, 24, 1
        goal = small_goal(rng, *size, int(rng.choice([0, 1, 2], p=[0.45, 0.5, 0.05])))
        found = goal.best(best_chain, SOLVES)
        value = np.inf if found.chain is None else goal.value(found.chain)
        least = least_value(goal)
        equal += bool(value == least or abs(value - least) <= 1e-9 * least)
    return [compared("exact instances", equal, "equal to brute force", small + large)]


def _scaled() -> list[Row]:
    rng = np.random.default_rng(1)
    rows: list[Row] = []
    for what, gap, workers, model, scale in (
        ("exact 8x80 s", "", 8, shapes(80, 8192, 4.5e8), 0.3),
        ("16x128 s", "16x128 gap", 16, shapes(128, 8192, 4.5e8), 0.25),
        ("heuristic 1000x126 s", "heuristic gap", 1000, shapes(126, 16384, 1.8e9), 1.0),
    ):
        cluster = racks(rng, workers, scale)
        for objective in (Objective.latency, Objective.throughput):
            name = "" if objective is Objective.latency else f" {objective.value}"
            seconds, share = _timed(model, cluster, objective)
            rows.append(Row(what=what + name, value=seconds, unit="s"))
            rows.append(Row(what=(gap or "exact 8x80 gap") + name, value=100 * share, unit="%"))
    return rows


def _timed(model: ModelSpec, cluster: Cluster, objective: Objective) -> tuple[float, float]:
    """Seconds, and by which share the objective may be above the best."""
    begin_s = time.perf_counter()
    cut = Optimal(objective=objective).cut(model, cluster, WORKLOAD)
    seconds = time.perf_counter() - begin_s
    assert cut.objective is not None
    assert cut.bound is not None
    return seconds, 1 - cut.bound / cut.objective
