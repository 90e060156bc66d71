"""The CUDA kernels against the NumPy references, their speed against a copy on the same GPU, and pipelines on GPUs.

Needs an NVIDIA GPU, and the extension built with CUDA; timing needs torch, `--only pipeline` onnxruntime-gpu and, for
what it compares with, transformers (and accelerate with several GPUs).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hyperlane.transport.codec.device import cuda
from tests.bench.pipeline.report import JOBS, Wanted, report
from tests.bench.row import Row

NAMES = ("int4_plain", "h8", "h4", "int4")


def run(args: Sequence[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench gpu")
    parser.add_argument("--codec", choices=NAMES, action="append", help="may repeat; all")
    parser.add_argument("--only", choices=("check", "time", "pipeline"), help="default: check and time")
    parser.add_argument("--workers", type=int, help="pipelines of so many workers (default there: 2)")
    parser.add_argument("--devices", default="0", help="GPUs that they take in turn, such as 0,1")
    parser.add_argument("--shape", choices=("7b", "13b"), action="append", help="may repeat; 7b")
    parser.add_argument("--link", default="int4", help="the codec between the workers")
    parser.add_argument("--job", choices=JOBS, action="append", help="of the pipelines; may repeat; all")
    parser.add_argument("--weights", choices=("fp16", "int4"), action="append", help="may repeat; both")
    parser.add_argument("--parts", type=Path, help="a folder that tests.bench.pipeline.parts wrote; else traced now")
    parser.add_argument("--seed", type=int, help="of the rows that are checked; default: a fresh one")
    options = parser.parse_args(args)
    if cuda() is None:
        raise SystemExit("no GPU, or the extension was built without CUDA")
    seed = options.seed if options.seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
    names, rows = options.codec or NAMES, []
    if options.only == "pipeline" or options.workers:
        numbers = [int(number) for number in options.devices.split(",")]
        workers = options.workers or 2
        places = [f"cuda:{numbers[i % len(numbers)]}" for i in range(workers)]
        wanted = Wanted(
            shapes=options.shape or ["7b"],
            weights=options.weights or ["fp16", "int4"],
            jobs=options.job or JOBS,
            places=places,
            codec=options.link,
        )
        return list(report(options.parts, wanted))
    if options.only != "time":
        from tests.bench.kernels.check import check

        rows += [row for name in names for row in check(name, seed)]
    if options.only != "check":
        from tests.bench.kernels.speed import copy_gb_s, time_codec

        ceiling = copy_gb_s()
        rows.append(Row(what="device copy, read plus written", value=ceiling, unit="GB/s"))
        rows += [row for name in names for row in time_codec(name, ceiling)]
    return rows
