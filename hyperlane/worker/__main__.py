"""hyperlane-worker: offers this machine to a cluster until it is told to stop."""

import logging
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 after SIGTERM or SIGINT, 2 for what the user can mend."""
    try:
        return _main(argv)
    except KeyboardInterrupt:  # before the signal handlers were set
        return 0


def _main(argv: Sequence[str] | None) -> int:
    import trio

    from hyperlane.errors import HyperlaneError, one_line
    from hyperlane.worker.options import parse
    from hyperlane.worker.serve import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        trio.run(serve, parse(argv))
    except HyperlaneError as error:
        print(f"hyperlane-worker: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
