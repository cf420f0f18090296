from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.errors import StoreError
from llm_proxy.store.migrations import MIGRATIONS
from llm_proxy.store.schema import migrate_schema, rollback_schema, schema_status

NAMES = [migration.name for migration in MIGRATIONS]


def test_a_file_is_made_rolled_back_and_migrated_again(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    assert migrate_schema(path) == NAMES
    assert migrate_schema(path) == []
    assert rollback_schema(path, steps=1) == [NAMES[-1]]
    assert [state.applied_at is None for state in schema_status(path)] == [False, False, True]
    assert migrate_schema(path) == [NAMES[-1]]


def test_without_a_database_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for look in (lambda: schema_status(path), lambda: rollback_schema(path, steps=1)):
        with pytest.raises(StoreError, match="there is no database at"):
            look()
    assert list(tmp_path.iterdir()) == []
