"""A database file that is ours, or is going to be: looked at before SQLite opens it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path
from urllib.parse import quote

from llm_proxy.errors import StoreError
from llm_proxy.store.engines.sqlite_failures import translated

APPLICATION_ID = 0x4C4C4D50  # "LLMP", at a fixed place in the file's header
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100


def prepare_file(path: Path, *, create: bool) -> None:
    """Without `create` the file must be an llm-proxy database already.

    A file that is somebody else's is refused after reading its header, and not touched.
    """
    is_empty = _is_empty(path)
    if is_empty or not _is_ours(path):
        if not is_empty:
            _refuse_unless_blank(path)
        if not create:
            raise StoreError(f"there is no database at {path}; make one with: llm-proxy db migrate")
        _create_file(path)
    _check_access(path)


def make_private(path: Path) -> None:
    """0600 for the file and those that SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        file = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if stat.S_IMODE(file.stat().st_mode) & 0o077:
                file.chmod(0o600)


def not_ours(path: Path) -> str:
    return f"the database {path} belongs to another program and is left alone; choose another file"


def _is_empty(path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    except OSError as exc:
        raise StoreError(f"the database {path} can't be opened: {exc.strerror}") from exc
    if stat.S_ISDIR(found.st_mode):
        raise StoreError(f"the database {path} is a folder; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"the database {path} isn't a regular file; choose another path")
    return found.st_size == 0


def _create_file(path: Path) -> None:
    """Private from its first moment; SQLite gives the files beside it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise StoreError(
            f"the database {path} can't be made: {exc.strerror}; "
            "choose a path in a folder that exists and is writable"
        ) from exc


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as exc:
        raise StoreError(f"the database {path} can't be read: {exc.strerror}") from exc
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise StoreError(f"the database {path} isn't a SQLite database; choose another file")
    return int.from_bytes(header[68:72], "big") == APPLICATION_ID


def _refuse_unless_blank(path: Path) -> None:
    """`immutable` keeps SQLite from making a single file beside a database that isn't ours."""
    location = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with translated(path), contextlib.closing(sqlite3.connect(location, uri=True)) as connection:
        row = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        identity = connection.execute("PRAGMA application_id").fetchone()
    if row != (0,) or identity != (0,):
        raise StoreError(not_ours(path))


def _check_access(path: Path) -> None:
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreError(f"the database {path} can't be opened: no permission to read and write it")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StoreError(
            f"the database {path} can't be opened: its folder must be writable, "
            "because SQLite keeps files beside it"
        )
