"""hyperlane-worker --all-gpus: one worker process for each GPU of this machine, which end together."""

import signal
import subprocess
import sys
from collections.abc import Sequence

import trio

from hyperlane.errors import ConfigError, WorkerError
from hyperlane.transport.codec.device import cuda
from hyperlane.worker.options import Options
from hyperlane.worker.serve import stop_on_signal, stop_on_stdin

STOP_TIMEOUT_S = 20.0


async def serve_all(options: Options, argv: Sequence[str]) -> None:
    """Until told to stop as one worker is; ConfigError without a GPU, WorkerError where one of them ends by itself."""
    module = cuda()
    count = 0 if module is None else int(module.device_count())
    if not count:
        raise ConfigError("--all-gpus finds no GPU that hyperlane can use; leave it out to compute on the CPU")
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, signals, nursery.cancel_scope)
            if options.parent_stdin:
                nursery.start_soon(stop_on_stdin, nursery.cancel_scope)
            for words in commands(options, argv, count):
                nursery.start_soon(_run, words)


def commands(options: Options, argv: Sequence[str], count: int) -> list[list[str]]:
    """The words of each GPU's worker: what was given, its own name, device and ports."""
    given = [word for word in argv if word not in ("--all-gpus", "--parent-stdin")]
    return [
        [
            *given,
            *("--name", f"{options.name}-{index}", "--device", f"cuda:{index}", "--parent-stdin"),
            *("--control-port", str(options.control_port and options.control_port + index)),
            *("--data-port", str(options.data_port and options.data_port + index)),
        ]
        for index in range(count)
    ]


async def _run(words: Sequence[str]) -> None:
    """One worker; it says goodbye when its standard input is closed, also where this process is killed."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "hyperlane.worker", *words], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        status = await process.wait()
    finally:
        with trio.CancelScope(shield=True):
            assert process.stdin is not None
            await process.stdin.aclose()
            with trio.move_on_after(STOP_TIMEOUT_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
    raise WorkerError(f"the worker {words[words.index('--name') + 1]} ended with status {status}; look at its log")
