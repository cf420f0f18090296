"""`llm-proxy db copy`: to another engine, or another place."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llm_proxy.database_url import DatabaseUrl

_PLACE = "PATH|URL"


def copy(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help=f"{_PLACE}, or - for the database in use here.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help=f"{_PLACE}, or - to be asked for it unseen.")
    ],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Replace all that the target holds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Copy everything to another database, of any engine. Stop the servers first.

    The target is made or brought up to date; the copy is complete or has not
    happened. Upstream keys stay encrypted: the target needs the same
    ENCRYPTION_KEY. A password in an argument can be seen by others on this
    machine: give - instead, and set DATABASE_URL or answer the question.

    Example: llm-proxy db copy - postgresql://llm-proxy@db.example.com/llm-proxy
    """
    from datetime import UTC, datetime

    from llm_proxy.store.copying import copy_database, count_rows

    old, new = _source(source), _target(target)
    _refuse_while_serving(old, new)
    with _progress(count_rows(old)) as advance:
        copied = copy_database(old, new, replaces=force, at=datetime.now(UTC), progress=advance)
    if as_json:
        print(json.dumps({"source": str(old), "target": str(new), "copied": copied}))
        return
    from llm_proxy.manage.tables import print_table

    print_table(("Table", "Rows"), [(table, str(rows)) for table, rows in copied.items()])
    print(f"{old} was copied to {new}. Set DATABASE_URL for the server.", file=sys.stderr)


def _source(text: str) -> Path | DatabaseUrl:
    from llm_proxy.settings import load_settings

    return load_settings({}).database if text == "-" else _named("SOURCE", text)


def _target(text: str) -> Path | DatabaseUrl:
    if text == "-":
        is_asked = sys.stdin.isatty()
        text = typer.prompt("Target", hide_input=True, err=True) if is_asked else sys.stdin.read()
        if not text.strip():
            raise typer.BadParameter("TARGET is -, but nothing came from stdin")
    return _named("TARGET", text)


def _named(argument: str, text: str) -> Path | DatabaseUrl:
    from llm_proxy.database_url import parse_database

    try:
        database = parse_database(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{argument} must be {exc}") from exc
    return database.expanduser().absolute() if isinstance(database, Path) else database


def _refuse_while_serving(*databases: Path | DatabaseUrl) -> None:
    from llm_proxy.cli.serving import refuse_while_serving
    from llm_proxy.settings import load_settings

    for database in databases:
        refuse_while_serving(load_settings({}).home, database)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    if not sys.stderr.isatty():
        yield lambda table, rows: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("copying", total=total)
        yield lambda table, rows: progress.update(task, advance=rows, description=table)
