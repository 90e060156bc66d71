"""`python -m tests.bench NAME [--json FILE] [options of the bench]`: measures, prints a table, writes it as JSON.

A bench is a module of this folder with `run(args) -> list[Row]`; `args` are the command line's other words.
"""

import argparse
import importlib
import json
import pkgutil
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import tests.bench
from hyperlane.errors import HyperlaneError, one_line
from tests.bench.row import Row


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", add_help=False)
    parser.add_argument("name", choices=_benches())
    parser.add_argument("--json", type=Path)
    args, rest = parser.parse_known_args(argv)
    rows = _run(args.name, rest)
    print(_table(rows))
    if args.json:
        report = {"name": args.name, "machine": _machine(), "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def _run(name: str, args: Sequence[str]) -> list[Row]:
    try:
        rows: list[Row] = importlib.import_module(f"tests.bench.{name}").run(args)
        return rows
    except HyperlaneError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def _benches() -> list[str]:
    names = sorted(module.name for module in pkgutil.iter_modules(tests.bench.__path__) if not module.ispkg)
    return [name for name in names if name not in ("__main__", "row", "teacher")]


def _table(rows: Sequence[Row]) -> str:
    lines = [("what", "value", "unit", "reference", "ratio")]
    lines += [(r.what, _figure(r.value), r.unit, _reference(r), _figure(r.ratio)) for r in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _reference(row: Row) -> str:
    if not isinstance(row.reference, str):
        return _figure(row.reference)
    return f"{row.reference}: {'missing' if row.reference_value is None else _figure(row.reference_value)}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _machine() -> str:
    """The processor's name, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores, {platform.system()}"


if __name__ == "__main__":
    main(sys.argv[1:])
