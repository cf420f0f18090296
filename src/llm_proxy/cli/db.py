"""`llm-proxy db`: the schema of the database on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_proxy.cli.db_copy import copy
from llm_proxy.cli.db_encryption import encrypt
from llm_proxy.cli.db_rotation import rotate_key
from llm_proxy.cli.serving import refuse_while_serving
from llm_proxy.settings import load_settings

if TYPE_CHECKING:
    from llm_proxy.database_url import DatabaseUrl

app = typer.Typer(help="Look after the database itself, without a server.", no_args_is_help=True)

Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="PATH|URL",
        help="Database instead of DATABASE_PATH, DATABASE_URL or that of the home.",
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def migrate(*, db: Database = None, as_json: AsJSON = False) -> None:
    """Bring the database up to date, or make it; a server does this at its start.

    Example: llm-proxy db migrate --db /var/lib/llm-proxy/llm-proxy.db
    """
    from llm_proxy.store.schema import migrate_schema

    settings = load_settings({"database_path": db})
    path = settings.database
    if isinstance(path, Path) and path.parent == settings.home.path:
        settings.home.ensure()
    applied = migrate_schema(path)
    if as_json:
        print(json.dumps({"database": str(path), "applied": applied}))
        return
    for name in applied:
        print(f"applied {name}")
    _tell(f"{path} is up to date.")


@app.command()
def status(*, db: Database = None, as_json: AsJSON = False) -> None:
    """Show which migrations the database has; exit 1 when some are missing.

    Example: llm-proxy db status --json
    """
    from llm_proxy.store.schema import schema_status

    path = _path(db)
    states = schema_status(path)
    is_current = all(state.applied_at is not None for state in states)
    if as_json:
        migrations = [
            {"name": s.name, "applied_at": s.applied_at and s.applied_at.isoformat()}
            for s in states
        ]
        found = {"database": str(path), "current": is_current, "migrations": migrations}
        print(json.dumps(found))
    else:
        from llm_proxy.manage.tables import print_table

        rows = [(s.name, s.applied_at or "missing") for s in states]
        print_table(("Migration", "Applied"), rows)
    if not is_current:
        _tell(f"{path} isn't up to date; run: llm-proxy db migrate")
        raise typer.Exit(1)


@app.command()
def rollback(
    *,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", min=1, help="How many migrations to undo.")
    ] = 1,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")] = False,
    db: Database = None,
    as_json: AsJSON = False,
) -> None:
    """Undo the newest migrations with the data in their tables. Stop the server first.

    Example: llm-proxy db rollback --steps 1 --yes
    """
    from datetime import UTC, datetime

    from llm_proxy.store.schema import rollback_schema

    settings = load_settings({"database_path": db})
    path = settings.database
    refuse_while_serving(settings.home, path)
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("a rollback loses data; confirm it with --yes")
    question = f"Undo {steps} migration(s) of {path} with their data?"
    if not yes and not typer.confirm(question, err=True):
        _tell("Nothing was changed.")
        raise typer.Exit(1)
    undone = rollback_schema(path, steps=steps, at=datetime.now(UTC))
    if as_json:
        print(json.dumps({"database": str(path), "undone": undone}))
        return
    for name in undone:
        print(f"undid {name}")
    _tell(f"{len(undone)} undone in {path}." if undone else f"There is nothing to undo in {path}.")


app.command()(copy)
app.command()(encrypt)
app.command()(rotate_key)


def _path(db: str | None) -> Path | DatabaseUrl:
    return load_settings({"database_path": db}).database


def _tell(message: str) -> None:
    print(message, file=sys.stderr)
