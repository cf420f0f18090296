from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import StoreError
from llm_proxy.store.migrations import MIGRATIONS
from llm_proxy.store.schema import migrate_schema, rollback_schema, schema_status

NAMES = [migration.name for migration in MIGRATIONS]


def test_a_database_is_made_rolled_back_and_migrated_again(
    database_target: Path | DatabaseUrl,
) -> None:
    path = database_target
    assert migrate_schema(path) == NAMES
    assert migrate_schema(path) == []
    assert rollback_schema(path, steps=1) == [NAMES[-1]]
    assert [state.applied_at is None for state in schema_status(path)] == [
        False for _ in NAMES[1:]
    ] + [True]
    assert migrate_schema(path) == [NAMES[-1]]


def test_without_a_database_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for look in (lambda: schema_status(path), lambda: rollback_schema(path, steps=1)):
        with pytest.raises(StoreError, match="there is no database at"):
            look()
    assert list(tmp_path.iterdir()) == []


def test_a_blank_database_of_a_server_is_none_of_ours_yet(postgres_url: DatabaseUrl) -> None:
    for look in (
        lambda: schema_status(postgres_url),
        lambda: rollback_schema(postgres_url, steps=1),
    ):
        with pytest.raises(StoreError, match="isn't an llm-proxy database yet.*db migrate"):
            look()
