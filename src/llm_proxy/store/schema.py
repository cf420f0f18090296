"""The schema of a database, without its data: for `llm-proxy db`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.store import migrations
from llm_proxy.store.database import Store
from llm_proxy.store.hosts import refuse_while_served
from llm_proxy.store.migrations import MigrationState
from llm_proxy.store.opening import Database, engine_of

Target = Path | DatabaseUrl


def migrate_schema(target: Target) -> list[str]:
    """Makes the database when there is none; the names of the migrations applied."""
    store = Store(target, cipher=None)
    try:
        return store.open(migrate=True)
    finally:
        store.close()


def schema_status(target: Target) -> list[MigrationState]:
    with _opened(target) as database:
        return migrations.status(database)


def rollback_schema(target: Target, *, steps: int, at: datetime) -> list[str]:
    """The names of the migrations undone. Raises Conflict while a server uses it."""
    with _opened(target) as database:
        if "hosts" in database.get_tables():
            refuse_while_served(database, str(target), at)
        return migrations.rollback(database, steps=steps)


@contextlib.contextmanager
def _opened(target: Target) -> Iterator[Database]:
    engine = engine_of(target)
    with engine.translated(), contextlib.closing(engine.connect()) as database:
        yield database
