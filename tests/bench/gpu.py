"""The CUDA kernels against the NumPy references, and their speed against a copy on the same GPU.

Needs an NVIDIA GPU, and the extension built with CUDA; timing needs torch.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from hyperlane.transport.codec.device import cuda
from tests.bench.row import Row

NAMES = ("int4_plain", "h8", "h4", "int4")


def run(args: Sequence[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench gpu")
    parser.add_argument("--codec", choices=NAMES, action="append", help="may repeat; all")
    parser.add_argument("--only", choices=("check", "time"), help="default: both")
    parser.add_argument("--seed", type=int, help="of the rows that are checked; default: a fresh one")
    options = parser.parse_args(args)
    if cuda() is None:
        raise SystemExit("no GPU, or the extension was built without CUDA")
    seed = options.seed if options.seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
    names, rows = options.codec or NAMES, []
    if options.only != "time":
        from tests.bench.kernels.check import check

        rows += [row for name in names for row in check(name, seed)]
    if options.only != "check":
        from tests.bench.kernels.speed import copy_gb_s, time_codec

        ceiling = copy_gb_s()
        rows.append(Row(what="device copy, read plus written", value=ceiling, unit="GB/s"))
        rows += [row for name in names for row in time_codec(name, ceiling)]
    return rows
