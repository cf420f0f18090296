from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.store.database import Store
from llm_proxy.store.engines.sqlite import SqliteEngine
from tests.store.engines.sqlite_files import sqlite_file


def test_a_blank_database_is_taken(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", "CREATE TABLE t (a)", "DROP TABLE t")
    database = SqliteEngine(path, patience_s=1).connect(create=True)
    assert database.sql("PRAGMA foreign_keys") == [(1,)]
    assert database.sql("PRAGMA synchronous") == [(2,)]
    database.close()


def test_switching_to_wal_waits_for_a_lock_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    engine = SqliteEngine(path, patience_s=0.05)
    database = engine.connect(create=True)
    database.sql("CREATE TABLE t (a)")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="can't be switched to write-ahead logging"):
        engine.settle(database)
    holder.execute("COMMIT")
    holder.close()
    engine.settle(database)
    assert database.sql("PRAGMA journal_mode") == [("wal",)]
    database.close()


def test_damage_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = Store(path, cipher=None)
    store.open(migrate=True)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 + 8 : 2 * 4096] = b"\xa5" * (4096 - 8)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.db is damaged; restore it from a backup"):
        store.open(migrate=True)


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = Store(path, cipher=None)
    store.open(migrate=True)
    store.close()
    path.write_bytes(path.read_bytes()[: 2 * 4096])
    with pytest.raises(StoreError, match="is damaged"):
        store.open(migrate=True)
