from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.store.database import Store
from llm_proxy.store.opening import APPLICATION_ID, make_private, open_database, use_wal


def sqlite_file(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


def test_a_new_file_is_private_from_the_start(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_database(tmp_path / "x.db", create=True).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.db").stat().st_mode) == 0o600


def test_without_create_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no database at .*x\.db; make one with"):
        open_database(tmp_path / "x.db", create=False)
    assert not (tmp_path / "x.db").exists()


def test_without_create_a_blank_database_is_not_ours_yet(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", "CREATE TABLE t (a)", "DROP TABLE t")
    with pytest.raises(StoreError, match="there is no database at"):
        open_database(path, create=False)


def test_a_blank_database_is_taken(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", "CREATE TABLE t (a)", "DROP TABLE t")
    database = open_database(path, create=True)
    assert database.sql("PRAGMA foreign_keys") == [(1,)]
    assert database.sql("PRAGMA synchronous") == [(2,)]
    database.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE projects (id TEXT)", "CREATE TABLE tokens (id TEXT)"],
        ["PRAGMA application_id = 7"],
        ["PRAGMA application_id = 7", "CREATE TABLE t (a)"],
        ["PRAGMA journal_mode = WAL", "CREATE TABLE t (a)"],
    ],
)
def test_a_database_of_another_program_is_refused_untouched(
    tmp_path: Path, statements: list[str]
) -> None:
    path = sqlite_file(tmp_path / "theirs.db", *statements)
    before = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
    with pytest.raises(StoreError, match=r"theirs\.db belongs to another program"):
        open_database(path, create=True)
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) == before
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.db"]


def test_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("SQLite format 3? no")
    with pytest.raises(StoreError, match="isn't a SQLite database; choose another file"):
        open_database(path, create=True)


def test_a_file_cut_within_its_header_is_refused(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", f"PRAGMA application_id = {APPLICATION_ID}")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(StoreError, match="isn't a SQLite database"):
        open_database(path, create=True)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder; name a file in it"):
        open_database(tmp_path, create=True)


def test_a_device_is_refused() -> None:
    with pytest.raises(StoreError, match="isn't a regular file"):
        open_database(Path("/dev/null"), create=True)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be opened: Not a directory"):
        open_database(tmp_path / "file" / "x.db", create=True)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be made: No such file or directory"):
        open_database(tmp_path / "no" / "x.db", create=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", f"PRAGMA application_id = {APPLICATION_ID}")
    path.chmod(0o400)
    with pytest.raises(StoreError, match="no permission to read and write it"):
        open_database(path, create=False)
    path.chmod(0o000)
    with pytest.raises(StoreError, match="can't be read: Permission denied"):
        open_database(path, create=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", f"PRAGMA application_id = {APPLICATION_ID}")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="its folder must be writable"):
            open_database(path, create=False)
    finally:
        tmp_path.chmod(0o700)


def test_files_that_were_left_open_to_others_are_closed_to_them(tmp_path: Path) -> None:
    for name in ("x.db", "x.db-wal", "x.db-shm"):
        (tmp_path / name).touch(mode=0o644)
    make_private(tmp_path / "x.db")
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_switching_to_wal_waits_for_a_lock_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    database = open_database(path, create=True, patience_s=0.05)
    database.sql("CREATE TABLE t (a)")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="can't be switched to write-ahead logging"):
        use_wal(database, path, patience_s=0.05)
    holder.execute("COMMIT")
    holder.close()
    use_wal(database, path, patience_s=0.05)
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
