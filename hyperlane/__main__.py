"""`python -m hyperlane` and the console script `hyperlane`."""

import os
import sys
import warnings

INTERRUPTED = 130


def main() -> None:
    """Run the command line and end the process with its exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # for a user, not where in our code
    try:
        from hyperlane.command import run  # here, so that Ctrl-C while modules are read is no traceback

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    _end(code)


def _end(code: int) -> None:
    """Exit without waiting for threads: one that is still reading torch would abort the interpreter."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
