from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import Conflict, StoreError
from llm_proxy.store.database import Store
from llm_proxy.store.hosts import beat
from llm_proxy.store.migrations import MIGRATIONS
from llm_proxy.store.schema import migrate_schema, rollback_schema, schema_status

NAMES = [migration.name for migration in MIGRATIONS]
NOW = datetime(2030, 1, 2, tzinfo=UTC)


def test_a_database_is_made_rolled_back_and_migrated_again(
    database_target: Path | DatabaseUrl,
) -> None:
    path = database_target
    assert migrate_schema(path) == NAMES
    assert migrate_schema(path) == []
    assert rollback_schema(path, steps=1, at=NOW) == [NAMES[-1]]
    assert [state.applied_at is None for state in schema_status(path)] == [
        False for _ in NAMES[1:]
    ] + [True]
    assert migrate_schema(path) == [NAMES[-1]]


def test_a_database_that_a_server_uses_is_not_rolled_back(
    database_target: Path | DatabaseUrl,
) -> None:
    store = Store(database_target, cipher=None)
    store.open(migrate=True)
    beat(store, "host", NOW)
    store.close()
    with pytest.raises(Conflict, match="a server uses the database"):
        rollback_schema(database_target, steps=1, at=NOW + timedelta(seconds=5))
    assert all(state.applied_at for state in schema_status(database_target))
    assert (
        rollback_schema(database_target, steps=2, at=NOW + timedelta(minutes=1)) == NAMES[-2:][::-1]
    )
    assert rollback_schema(database_target, steps=1, at=NOW) == [NAMES[-3]]


def test_without_a_database_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for look in (lambda: schema_status(path), lambda: rollback_schema(path, steps=1, at=NOW)):
        with pytest.raises(StoreError, match="there is no database at"):
            look()
    assert list(tmp_path.iterdir()) == []


def test_a_blank_database_of_a_server_is_none_of_ours_yet(postgres_url: DatabaseUrl) -> None:
    for look in (
        lambda: schema_status(postgres_url),
        lambda: rollback_schema(postgres_url, steps=1, at=NOW),
    ):
        with pytest.raises(StoreError, match="isn't an llm-proxy database yet.*db migrate"):
            look()
