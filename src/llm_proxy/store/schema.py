"""The schema of a database file, without its data: for `llm-proxy db`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from llm_proxy.store import migrations
from llm_proxy.store.database import Store
from llm_proxy.store.failures import translated
from llm_proxy.store.migrations import MigrationState
from llm_proxy.store.opening import Database, open_database


def migrate_schema(path: Path) -> list[str]:
    """Makes the database when there is none; the names of the migrations applied."""
    store = Store(path, cipher=None)
    try:
        return store.open(migrate=True)
    finally:
        store.close()


def schema_status(path: Path) -> list[MigrationState]:
    with _opened(path) as database:
        return migrations.status(database, path)


def rollback_schema(path: Path, *, steps: int) -> list[str]:
    """The names of the migrations undone. No server may be running on it."""
    with _opened(path) as database:
        return migrations.rollback(database, path, steps=steps)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Database]:
    database = open_database(path, create=False)
    with translated(path), contextlib.closing(database):
        yield database
