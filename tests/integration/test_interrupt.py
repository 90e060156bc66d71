"""Ctrl-C at any stage leaves no process, no half-written artifact and no traceback; the next run resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.cli import environment, hyperlane

TINY = ("model=tiny", "generate.context=512", "generate.max_new_tokens=400", "generate.ignore_eos=true")
DEADLINE_S = 60


def interrupt_when(said: str, arguments: tuple[str, ...], cwd: Path, store: Path) -> tuple[int, str, str]:
    """Start a run, send SIGINT once its output holds `said`; returns exit code, output and errors."""
    command = [sys.executable, "-u", "-m", "hyperlane", *arguments]
    err_path, out_path = cwd / "err.txt", cwd / "out.txt"
    with out_path.open("wb") as out, err_path.open("wb") as err:
        process = subprocess.Popen(command, cwd=cwd, env=environment(store), stdout=out, stderr=err)
        deadline_s = time.monotonic() + DEADLINE_S
        while said not in err_path.read_text() + out_path.read_text():
            assert process.poll() is None, err_path.read_text()
            assert time.monotonic() < deadline_s, f"never said {said!r}: {err_path.read_text()}"
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=DEADLINE_S)
    return code, out_path.read_text(), err_path.read_text()


def workers_of(store: Path) -> list[psutil.Process]:
    """Processes that were given this store."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(store) in (p.info["cmdline"] or [])]


@pytest.mark.parametrize(
    "said", ["discover: begins", "plan: begins", "export: begins", "deploy: begins", "generate: begins"]
)
def test_ctrl_c(said: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    arguments = (*TINY, "prompt=Hello", "hydra.job_logging.handlers.console.level=INFO")
    code, _, err = interrupt_when(said, arguments, tmp_path, store)
    assert code == 130, err
    assert "Traceback" not in err
    assert workers_of(store) == []
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".") and path.is_file()] == []
    (hydra,) = tmp_path.glob("outputs/*/*/.hydra")
    done = hyperlane(f"run_dir={hydra.parent}", "generate.max_new_tokens=4", cwd=tmp_path, store=store)
    assert done.code == 0, done.err
    assert len(done.generation["requests"][0]["token_ids"]) == 4
    assert workers_of(store) == []


def test_a_killed_coordinator_leaves_no_worker(tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-m", "hyperlane", *TINY, "prompt=Hello"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(store), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    deadline_s = time.monotonic() + DEADLINE_S
    while not (workers := workers_of(store)):
        assert time.monotonic() < deadline_s
    process.kill()
    process.communicate()
    gone, alive = psutil.wait_procs(workers, timeout=15)
    assert alive == []
    assert gone
