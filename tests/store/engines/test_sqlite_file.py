from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llm_proxy.errors import StoreError
from llm_proxy.store.engines.sqlite_file import APPLICATION_ID, make_private, prepare_file
from tests.store.engines.sqlite_files import sqlite_file


def test_a_new_file_is_private_from_the_start(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        prepare_file(tmp_path / "x.db", create=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.db").stat().st_mode) == 0o600


def test_without_create_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no database at .*x\.db; make one with"):
        prepare_file(tmp_path / "x.db", create=False)
    assert not (tmp_path / "x.db").exists()


def test_without_create_a_blank_database_is_not_ours_yet(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", "CREATE TABLE t (a)", "DROP TABLE t")
    with pytest.raises(StoreError, match="there is no database at"):
        prepare_file(path, create=False)


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
        prepare_file(path, create=True)
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) == before
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.db"]


def test_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("SQLite format 3? no")
    with pytest.raises(StoreError, match="isn't a SQLite database; choose another file"):
        prepare_file(path, create=True)


def test_a_file_cut_within_its_header_is_refused(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", f"PRAGMA application_id = {APPLICATION_ID}")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(StoreError, match="isn't a SQLite database"):
        prepare_file(path, create=True)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder; name a file in it"):
        prepare_file(tmp_path, create=True)


def test_a_device_is_refused() -> None:
    with pytest.raises(StoreError, match="isn't a regular file"):
        prepare_file(Path("/dev/null"), create=True)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be opened: Not a directory"):
        prepare_file(tmp_path / "file" / "x.db", create=True)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be made: No such file or directory"):
        prepare_file(tmp_path / "no" / "x.db", create=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", f"PRAGMA application_id = {APPLICATION_ID}")
    path.chmod(0o400)
    with pytest.raises(StoreError, match="no permission to read and write it"):
        prepare_file(path, create=False)
    path.chmod(0o000)
    with pytest.raises(StoreError, match="can't be read: Permission denied"):
        prepare_file(path, create=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "x.db", f"PRAGMA application_id = {APPLICATION_ID}")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="its folder must be writable"):
            prepare_file(path, create=False)
    finally:
        tmp_path.chmod(0o700)


def test_files_that_were_left_open_to_others_are_closed_to_them(tmp_path: Path) -> None:
    for name in ("x.db", "x.db-wal", "x.db-shm"):
        (tmp_path / name).touch(mode=0o644)
    make_private(tmp_path / "x.db")
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
