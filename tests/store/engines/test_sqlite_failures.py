from __future__ import annotations

import sqlite3
from pathlib import Path

import peewee
import pytest

from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.store.engines.sqlite_failures import translated


def test_a_lock_of_another_connection_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("CREATE TABLE t (a)")
    holder.execute("BEGIN EXCLUSIVE")
    database = peewee.SqliteDatabase(str(path), timeout=0)
    locked = r"x\.db has been locked by another process"
    with pytest.raises(StoreUnavailable, match=locked), translated(path):
        database.execute_sql("SELECT * FROM t")  # type: ignore[no-untyped-call]
    database.close()
    holder.close()


def test_a_read_only_file_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    sqlite3.connect(path).close()
    path.touch()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with pytest.raises(StoreUnavailable, match="can't be written"), translated(path):
        connection.execute("CREATE TABLE t (a)")
    connection.close()


def test_text_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, not a database. " * 40)
    connection = sqlite3.connect(path)
    with pytest.raises(StoreError, match="isn't a SQLite database") as caught, translated(path):
        connection.execute("SELECT * FROM sqlite_master")
    assert not isinstance(caught.value, StoreUnavailable)
    connection.close()


def test_a_missing_folder_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "no" / "x.db"
    with pytest.raises(StoreUnavailable, match="check that its folder exists"), translated(path):
        peewee.SqliteDatabase(str(path)).connect()


def test_a_closed_connection_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.close()
    with pytest.raises(StoreUnavailable, match="is closed"), translated(path):
        connection.execute("SELECT 1")


def test_a_failure_nobody_foresaw_says_what_sqlite_said(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    with pytest.raises(StoreError, match="failed: no such table: t"), translated(path):
        connection.execute("SELECT * FROM t")
    connection.close()


def test_our_own_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ours"), translated(tmp_path):
        raise ValueError("ours")
