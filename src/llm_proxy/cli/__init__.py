"""The command line: one module for each group of commands."""

from typing import NoReturn


def main() -> NoReturn:
    """The console script; Ctrl-C is no traceback even while it is being imported."""
    import gc
    import sys

    gc.set_threshold(50_000)  # imports make many objects and free none: a tenth of the start
    try:
        from llm_proxy.cli.main import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
