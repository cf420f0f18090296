"""The command line: one module for each group of commands."""

from typing import NoReturn


def main() -> NoReturn:
    """The console script; Ctrl-C is no traceback even while it is being imported."""
    import gc
    import sys

    _open_missing_streams()
    gc.set_threshold(50_000)  # imports make many objects and free none: a tenth of the start
    try:
        from llm_proxy.cli.main import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)


def _open_missing_streams() -> None:
    """A launcher may leave stdin, stdout or stderr closed; the next file would become it."""
    import os
    import sys

    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))
