"""hyperlane-worker as a process: ready soon, light, and gone without a trace."""

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperlane.control.client import ControlClient
from hyperlane.control.types import State
from tests.integration.processes import ROOT, WorkerProcess, start_worker, stop_worker

Start = Callable[..., WorkerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers of a cluster of their own, on loopback."""
    started: list[WorkerProcess] = []
    common = ("--cluster", f"t-{secrets.token_hex(4)}", "--store", str(tmp_path / "store"))

    def start(*options: str, env: dict[str, str] | None = None) -> WorkerProcess:
        started.append(start_worker(*common, *options, env=env))
        return started[-1]

    yield start
    for process in started:
        stop_worker(process)


def test_is_ready_in_under_four_seconds_and_imports_nothing_heavy(start: Start, tmp_path: Path) -> None:
    marks = tmp_path / "imported"
    for module in ("torch", "transformers", "onnx", "hydra", "omegaconf"):
        (tmp_path / f"{module}.py").write_text(f"open({str(marks)!r}, 'a').write('{module} ')\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    begun = time.monotonic()
    process = start("--name", "w", env=env).wait_ready()
    ready_s = time.monotonic() - begun
    with ControlClient(f"127.0.0.1:{process.port('control')}") as client:
        stats = client.stats().result()
    assert (stats.name, stats.state, stats.data_port) == ("w", State.EMPTY, process.port("data"))
    assert not marks.exists(), f"imports {marks.read_text()}"
    assert ready_s < 4.0


def test_signals_end_it_quietly(start: Start) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    processes = [start("--name", number.name) for number in numbers]
    for number, process in zip(numbers, processes, strict=True):
        process.wait_ready().popen.send_signal(number)
    for number, process in zip(numbers, processes, strict=True):
        status, log = process.end()
        assert status == 0
        assert f"{number.name}: goodbye" in log
        assert "Traceback" not in log


def test_signal_during_the_announcement_ends_it_too(start: Start) -> None:
    process = start("--parent-stdin")
    process.wait_line("listens on", 10)
    process.popen.send_signal(signal.SIGTERM)
    status, log = process.end()
    assert status == 0
    assert " is ready: " not in log
    assert "Traceback" not in log


def test_end_of_standard_input_ends_it(start: Start) -> None:
    process = start("--parent-stdin").wait_ready()
    assert process.popen.stdin is not None
    process.popen.stdin.close()
    assert process.end()[0] == 0


def test_no_orphan_when_the_coordinator_is_killed(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'hyperlane.worker', '--parent-stdin', *sys.argv[1:]]\n"
        "pipes = {'stdin': subprocess.PIPE, 'stderr': subprocess.PIPE}\n"
        "worker = subprocess.Popen(command, **pipes, start_new_session=True)\n"
        "while b' is ready: ' not in worker.stderr.readline(): pass\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    options = ["--cluster", f"t-{secrets.token_hex(4)}", "--store", str(tmp_path)]
    command = [sys.executable, "-c", program, *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        watch = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        ended, _, _ = select.select([watch], [], [], 10.0)
        os.close(watch)
    assert ended, "the worker outlived its parent by 10 s"


@pytest.mark.parametrize("option", ["--control-port", "--data-port"])
def test_port_in_use_is_one_line_and_status_2(start: Start, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        status, log = start(option, str(port)).end()
    assert status == 2
    told = f"cannot listen on 127.0.0.1:{port} (is the port in use?); set {option} to another"
    assert log.splitlines()[-1] == f"hyperlane-worker: {told}"
    assert "\n" not in log


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "a.b"), "'a.b' is no name"),
        (("--host", "0.0.0.0"), "--host 0.0.0.0 lets others reach this worker"),
        (("--threads", "0"), "--threads is 0; it must be at least 1"),
        (("--device", "tpu"), "unknown device 'tpu'; use cpu or cuda:0"),
        (("--interface", "nope0"), "there is no interface 'nope0'"),
    ],
)
def test_option_that_cannot_work_is_one_line_and_status_2(start: Start, options: tuple[str, ...], message: str) -> None:
    status, log = start(*options).end()
    assert status == 2
    assert log.startswith(f"hyperlane-worker: {message}")
    assert "\n" not in log


def test_lan_is_warned_of_loudly(start: Start) -> None:
    process = start("--allow-lan", "--host", "127.0.0.1").wait_ready()
    assert any("WARNING" in line and "no authentication" in line for line in process.lines)
