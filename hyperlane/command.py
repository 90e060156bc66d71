"""One command line: Hydra composes the configuration, `compose` types it, trio runs the stages."""

import contextlib
import io
import logging
import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import hydra
import trio
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hyperlane import report
from hyperlane.arguments import prepare
from hyperlane.compose import conf_dir, explain, register_resolvers, to_config
from hyperlane.errors import ConfigError, HyperlaneError, StoreError, first_known, one_line
from hyperlane.report import rows
from hyperlane.sweep import make_row, write_row

INTERRUPTED = 130
BROKEN_PIPE = 141


def run(arguments: list[str]) -> int:
    """Exit code 0, 2 for bad input, 1 for a failure of the chain, 130 after Ctrl-C.

    Errors are one line on standard error; --help, --cfg and completion are Hydra's own.
    """
    exit_codes: list[int] = []
    composed_once = False

    def job(composed: DictConfig) -> float:
        nonlocal composed_once
        composed_once = True
        try:
            return _job(composed)
        except HyperlaneError as error:  # said here: Hydra would add lines of its own, and end a sweep
            exit_codes.append(_report(error))
            return math.inf

    register_resolvers()
    try:
        sys.argv = ["hyperlane", *_checked_flags(prepare(arguments))]
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing, and one line is made of it here
        hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(job)()
    except (HyperlaneError, HydraException, OmegaConfBaseException) as error:
        return _report(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:  # Hydra's own files: the run's folder, the log
        return _report(StoreError(f"cannot write the run's folder: {error}; free some room or choose another folder"))
    except ModuleNotFoundError as error:
        extra = _extra_of(error)
        if extra is None:
            raise
        return _report(ConfigError(f"{error.name} is not installed; pip install 'hyperlane[{extra}]'"))
    except (ValueError, TypeError) as error:  # Hydra's own too, of an option that is a number, say
        if composed_once:
            raise
        return _report(ConfigError(f"{one_line(error)}; an option is chosen by its name, as in model=tiny"))
    return max(exit_codes, default=0)


def _extra_of(error: ModuleNotFoundError) -> str | None:
    """The extra of this package that brings what is missing."""
    package = (error.name or "").partition(".")[0]
    if package in ("torch", "transformers", "onnx", "onnxscript", "accelerate", "gguf", "safetensors"):
        return "export"
    return "cpu" if package == "onnxruntime" else None


def _checked_flags(words: list[str]) -> list[str]:
    """The words; ConfigError where argparse would end the process with its usage, which is many lines."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            get_args_parser().parse_args(words)
    except SystemExit as ended:
        if ended.code:
            wrong = said.getvalue().strip().splitlines()[-1].rpartition("error: ")[2]
            raise ConfigError(f"{wrong}; --help lists what there is") from ended
        raise
    return words


def _job(composed: DictConfig) -> float:
    """One run, and what a tuning sweep minimizes; in a sweep a failed one leaves its row too."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir).resolve()
    figures: dict[str, str] = {}
    failure, exit_code, seconds = "", 1, math.inf
    try:
        figures, seconds = _run_stages(composed, folder)
        exit_code = 0
    except HyperlaneError as error:
        failure, exit_code = one_line(error), error.exit_code
        raise
    finally:
        if settings.mode == RunMode.MULTIRUN:
            row = make_row(settings.job.num, list(settings.overrides.task), figures, failure, exit_code, folder)
            write_row(Path(settings.sweep.dir), row)
    print(f"run: {folder}", flush=True)
    return seconds


def _run_stages(composed: DictConfig, folder: Path) -> tuple[dict[str, str], float]:
    """Returns the figures of what was generated, if anything, and what a tuning sweep minimizes."""
    try:
        return trio.run(_until_signal, composed, folder)
    except BaseExceptionGroup as group:
        raise first_known(group) from group


async def _until_signal(composed: DictConfig, folder: Path) -> tuple[dict[str, str], float]:
    """Ctrl-C cancels the stages, so that each cleans up; a second one ends the process at once."""
    config = to_config(composed)
    from hyperlane import runner  # here, so that a wrong configuration is said before torch is read

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            context = await runner.run(config, folder)
            nursery.cancel_scope.cancel()
            if "generate" not in context.artifacts:
                return {}, math.inf
            figures = rows(context.generation, context.deployment)
            return figures, report.seconds(context.generation, config.minimize)
    print(f"interrupted; go on with: run_dir={folder}", file=sys.stderr, flush=True)
    raise KeyboardInterrupt


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        logging.getLogger(__name__).warning("interrupted; cleaning up (once more ends at once)")
        scope.cancel()
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def _report(error: Exception) -> int:
    """Say what went wrong in one line; returns the exit code."""
    message = one_line(error) if isinstance(error, HyperlaneError) else explain(error)
    print(f"error: {message}", file=sys.stderr, flush=True)
    return error.exit_code if isinstance(error, HyperlaneError) else 2
