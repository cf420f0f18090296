"""The root command, and the one place that turns failures into a sentence and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

import typer

from llm_proxy import __version__
from llm_proxy.cli import completions
from llm_proxy.cli.commands import LazyCommands
from llm_proxy.cli.wrong_values import explained
from llm_proxy.errors import LLMProxyError, WrongUsage

INTERRUPTED = 130

app = typer.Typer(
    name="llm-proxy",
    cls=LazyCommands,
    help="A fast, transparent LLM gateway that keeps API keys and hands out withering tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they may show local variables, and so secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"llm-proxy {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    pass


@runtime_checkable
class _UsageError(Protocol):
    """What Typer raises for wrong usage; its base class isn't exported."""

    exit_code: int
    message: str

    def show(self) -> None: ...


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and gives its exit code."""
    if shell := completions.wanted_shell(os.environ):
        print(completions.completion_script(app, shell), end="")
        return 0
    try:
        result = app(args=list(arguments), prog_name="llm-proxy", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except Exception as exc:
        if "--debug" in arguments and not isinstance(exc, _UsageError):
            raise
        return _explain(_broken_argument(exc, arguments) or exc)


def _broken_argument(exc: Exception, arguments: Sequence[str]) -> WrongUsage | None:
    """A byte that isn't text stands in an argument as half a character, which can't be sent."""
    if not isinstance(exc, UnicodeEncodeError):
        return None
    for place, argument in enumerate(arguments, start=1):
        if any("\ud800" <= char <= "\udfff" for char in argument):  # never shown: it may be a key
            return WrongUsage(f"argument {place} of the command isn't text in UTF-8; type it anew")
    return None


def _explain(exc: Exception) -> int:
    if isinstance(exc, _UsageError):
        exc.message = explained(exc.__cause__) or exc.message
        exc.show()
        return exc.exit_code
    if isinstance(exc, LLMProxyError):
        print(f"Error: {exc}", file=sys.stderr)
        return exc.exit_code
    print(
        f"Error: {type(exc).__name__}: {exc} "
        "(this wasn't foreseen; `llm-proxy --debug …` shows the traceback)",
        file=sys.stderr,
    )
    return 1


def _silence_stdout() -> None:
    """Whoever read our output has gone: the flush at exit must not complain about it."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
