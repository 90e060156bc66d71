"""hyperlane-worker: offers this machine to a cluster until it is told to stop."""

import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperlane.worker.options import Options


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 after SIGTERM or SIGINT, 2 for what the user can mend."""
    try:
        return _main(argv)
    except KeyboardInterrupt:  # before the signal handlers were set
        return 0


def _main(argv: Sequence[str] | None) -> int:
    from hyperlane.errors import HyperlaneError, one_line
    from hyperlane.worker.options import parse

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    words = sys.argv[1:] if argv is None else argv
    try:
        _serve(parse(words), words)
    except HyperlaneError as error:
        print(f"hyperlane-worker: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


def _serve(options: "Options", words: Sequence[str]) -> None:
    import trio

    from hyperlane.errors import first_known
    from hyperlane.worker.serve import serve

    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # cuda:N is then what nvidia-smi calls N
    try:
        if options.all_gpus:
            from hyperlane.worker.all_gpus import serve_all

            trio.run(serve_all, options, words)
        else:
            trio.run(serve, options)
    except BaseExceptionGroup as group:
        raise first_known(group) from group


if __name__ == "__main__":
    sys.exit(main())
