"""`--multirun`: every job leaves a row, and the end of the sweep shows them as one table and one CSV."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from hyperlane.compose import parse_value, register_resolvers
from hyperlane.rundir import write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One job of a sweep: what was set, what came of it, and its folder."""

    job: int
    overrides: dict[str, str]
    figures: dict[str, str]
    failure: str
    exit_code: int
    folder: str


def make_row(
    job: int, overrides: Sequence[str], figures: dict[str, str], failure: str, exit_code: int, folder: Path
) -> Row:
    return Row(
        job=job,
        overrides={key: str(parse_value(key, text)) for key, text in _split(overrides)},
        figures=figures,
        failure=failure,
        exit_code=exit_code,
        folder=str(folder),
    )


def _split(overrides: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [word.lstrip("+~").partition("=") for word in overrides]
    return [(key, text) for key, _, text in pairs]


def write_row(sweep_dir: Path, row: Row) -> None:
    write_atomic(sweep_dir / "jobs" / f"{row.job}.json", json.dumps(asdict(row), indent=2) + "\n")


def read_rows(sweep_dir: Path) -> list[Row]:
    found = [Row(**json.loads(path.read_text())) for path in (sweep_dir / "jobs").glob("*.json")]
    return sorted(found, key=lambda row: row.job)


def table_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: what differs between the jobs, the figures, failures if any, the folder."""
    names = list(dict.fromkeys(name for row in rows for name in row.overrides))
    varied = [name for name in names if len({row.overrides.get(name) for row in rows}) > 1]
    measured = list(dict.fromkeys(name for row in rows for name in row.figures))
    failed = ["failure"] if any(row.failure for row in rows) else []
    lines = [
        [
            str(row.job),
            *(row.overrides.get(name, "") for name in varied),
            *(row.figures.get(name, "") for name in measured),
            *([row.failure] if failed else []),
            row.folder,
        ]
        for row in rows
    ]
    return ["job", *varied, *measured, *failed, "folder"], lines


def for_a_terminal(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """`table_of` made narrow: without folders, without figures that are all the same, and without asides."""
    short = [replace(row, figures={name: _ASIDE.sub("", text) for name, text in row.figures.items()}) for row in rows]
    header, lines = table_of(short)
    figures = {name for row in rows for name in row.figures}
    kept = [
        index
        for index, name in enumerate(header[:-1])
        if name not in figures or len(lines) == 1 or len({line[index] for line in lines}) > 1
    ]
    return [header[index] for index in kept], [[line[index] for index in kept] for line in lines]


_ASIDE = re.compile(r" \([^()]*\)")


class ResultsTable(Callback):
    """Hydra's hook at the end of a sweep: results.csv in the sweep's folder, the table, the worst job's exit code."""

    def __reduce__(self) -> tuple[Callable[[], "ResultsTable"], tuple[()]]:
        return in_a_process_of_its_own, ()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        sweep_dir = Path(config.hydra.sweep.dir).resolve()
        found = read_rows(sweep_dir)
        if not found:
            return
        header, lines = table_of(found)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *lines])
        write_atomic(sweep_dir / "results.csv", text.getvalue())
        names, cells = for_a_terminal(found)  # the CSV has everything
        table = Table(*names, title=f"{len(lines)} jobs", title_justify="left")
        for line in cells:
            table.add_row(*line)
        Console(highlight=False, markup=False).print(table)
        print(f"results: {sweep_dir / 'results.csv'}", flush=True)
        _end_processes()
        code = max(row.exit_code for row in found)
        if code:  # of jobs in other processes too; Hydra lets no other exception of a hook through
            sys.exit(code)


def _end_processes() -> None:
    """Those of the joblib launcher wait for more jobs, and would be left without a word."""
    loky = sys.modules.get("joblib.externals.loky")
    if loky is not None:
        loky.get_reusable_executor().shutdown(wait=True)


def in_a_process_of_its_own() -> ResultsTable:
    """A launcher that runs jobs in other processes copies the hook into each: that is where these begin."""
    register_resolvers()
    return ResultsTable()
