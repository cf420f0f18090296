"""SQLite's failures as ours, each one sentence that names the file and what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peewee

from llm_proxy.errors import StoreError, StoreUnavailable

# By primary result code: (may it pass by itself, what to say).
_FAILURES = {
    sqlite3.SQLITE_BUSY: (
        True,
        "has been locked by another process for too long; "
        "try again, or stop the program that holds it",
    ),
    sqlite3.SQLITE_LOCKED: (True, "is locked; try again"),
    sqlite3.SQLITE_IOERR: (True, "can't be read or written (disk I/O error); check its disk"),
    sqlite3.SQLITE_FULL: (True, "can't grow because its disk is full; free some space"),
    sqlite3.SQLITE_CANTOPEN: (
        True,
        "can't be opened; check that its folder exists and is writable",
    ),
    sqlite3.SQLITE_READONLY: (True, "can't be written; check the permissions of file and folder"),
    sqlite3.SQLITE_PERM: (False, "can't be opened: no permission"),
    sqlite3.SQLITE_CORRUPT: (False, "is damaged; restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (False, "isn't a SQLite database; choose another file"),
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raises StoreUnavailable or StoreError for whatever the database raises inside."""
    try:
        yield
    except (peewee.PeeweeException, sqlite3.Error) as exc:
        raise failure_of(exc, path) from exc


def failure_of(exc: Exception, path: Path) -> StoreError:
    source = exc if isinstance(exc, sqlite3.Error) else exc.__context__
    code = getattr(source, "sqlite_errorcode", 0) & 0xFF  # the rest refines it
    if code in _FAILURES:
        may_pass, sentence = _FAILURES[code]
        kind = StoreUnavailable if may_pass else StoreError
        return kind(f"the database {path} {sentence}")
    if isinstance(exc, peewee.InterfaceError | sqlite3.ProgrammingError):
        return StoreUnavailable(f"the database {path} is closed")
    return StoreError(f"the database {path} failed: {exc}")
