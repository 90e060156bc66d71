"""verify names the first digest that differs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hyperlane.verify import first_difference

RECORD = {"config_sha256": "c", "inputs": {"cluster": "1"}, "outputs": {"plan": "2", "generate": "3"}}


def changed(section: str, name: str, value: str) -> dict[str, object]:
    copy = json.loads(json.dumps(RECORD))
    copy[section][name] = value
    return copy


def test_equal_runs_do_not_differ() -> None:
    assert first_difference(RECORD, json.loads(json.dumps(RECORD))) is None


def test_the_first_difference_in_the_order_of_a_run_is_named() -> None:
    both = changed("outputs", "plan", "x")
    both["outputs"]["generate"] = "y"
    assert first_difference(RECORD, both) == "outputs.plan: 2 and x"
    assert first_difference(RECORD, changed("inputs", "cluster", "x")) == "inputs.cluster: 1 and x"
    assert first_difference(RECORD, changed("outputs", "more", "x")) == "outputs.more: absent and x"
    assert first_difference(RECORD, {**RECORD, "config_sha256": "d"}) == "config_sha256: c and d"


def verify(*folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hyperlane.verify", *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(("other", "code", "said"), [(RECORD, 0, "same"), (changed("outputs", "plan", "x"), 1, "plan")])
def test_exit_code_and_words(tmp_path: Path, other: object, code: int, said: str) -> None:
    for name, record in (("a", RECORD), ("b", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    done = verify(tmp_path / "a", tmp_path / "b")
    assert (done.returncode, said in done.stdout) == (code, True)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_what_is_no_run_is_one_line_and_exit_code_2(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    done = verify(tmp_path, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
