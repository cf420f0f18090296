"""SQLite: a file on this machine."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peewee

from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.store.engines.connection import Database
from llm_proxy.store.engines.engine import Engine
from llm_proxy.store.engines.sqlite_failures import failure_of
from llm_proxy.store.engines.sqlite_file import (
    APPLICATION_ID,
    make_private,
    not_ours,
    prepare_file,
)

_QUICK_CHECK_LIMIT = 64 * 2**20  # bytes; checking takes about a second per 500 MB
# IMMEDIATE: a transaction that starts to write late fails at once when another one writes.
_LOCKS = {"read": "DEFERRED", "write": "IMMEDIATE"}


class SqliteConnection(Database, peewee.SqliteDatabase):
    lacks_migrations = (
        "lacks llm-proxy's table of migrations; restore it from a backup or choose another file"
    )

    def __init__(self, path: Path, *, patience_s: float) -> None:
        super().__init__(
            str(path),
            # foreign_keys is off by default; FULL survives a power failure in WAL mode too.
            pragmas=[("foreign_keys", 1), ("synchronous", "FULL")],
            timeout=patience_s,
            check_same_thread=False,  # one thread at a time has it
            thread_safe=False,
            autoconnect=False,
        )
        self.shown = str(path)
        self._path = path
        self._file: os.stat_result | None = None  # that is open

    def open(self) -> None:
        self.connect()
        with contextlib.suppress(OSError):
            self._file = self._path.stat()

    def written(self, statement: str) -> str:
        return statement

    def define(self, statement: str) -> None:
        self.sql(statement.replace("LONGTEXT", "TEXT"))

    def begin(self, kind: str | None = None) -> None:
        self._refuse_lost_file()
        peewee.SqliteDatabase.begin(self, _LOCKS[kind or "read"])

    def rollback(self) -> None:
        # When its disk is full or broken SQLite has done so by itself.
        if self.connection().in_transaction:  # type: ignore[no-untyped-call]
            peewee.SqliteDatabase.rollback(self)

    def _refuse_lost_file(self) -> None:
        """SQLite goes on in a file that was removed, and all that it commits there is lost."""
        with contextlib.suppress(OSError):
            if self._file is not None and os.path.samestat(self._file, self._path.stat()):
                return
        raise StoreUnavailable(
            f"the database {self._path} was removed or replaced while it was open; "
            "put it back, or restart llm-proxy"
        )

    @contextmanager
    def migrating(self) -> Iterator[None]:
        with self.atomic("write"):
            yield

    def claim(self) -> None:
        if self.pragma("application_id") == APPLICATION_ID:
            return
        if self.sql("SELECT count(*) FROM sqlite_master") != [(0,)]:
            raise StoreError(not_ours(self._path))
        self.sql(f"PRAGMA application_id = {APPLICATION_ID}")
        self.make_migrations_table()

    def is_broken(self) -> bool:
        return False

    def highest_id(self, table: str) -> int:
        found = self.sql("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
        return int(found[0][0]) if found else 0

    def number_from(self, table: str, highest: int) -> None:
        self.sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        self.sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, highest))


class SqliteEngine(Engine):
    is_shared = False
    driver_errors = (sqlite3.Error,)

    def __init__(self, path: Path, *, patience_s: float) -> None:
        self.shown = str(path)
        self._path = path
        self._patience_s = patience_s

    def connect(self, *, create: bool = False) -> SqliteConnection:
        prepare_file(self._path, create=create)
        database = SqliteConnection(self._path, patience_s=self._patience_s)
        with self.translated():
            database.open()
        return database

    def check(self, database: Database) -> None:
        """Reads the whole file, unless it is so large that a start would take long."""
        if self._path.stat().st_size > _QUICK_CHECK_LIMIT:
            return
        with self.translated():
            found = database.sql("PRAGMA quick_check(1)")
        if found != [("ok",)]:
            raise StoreError(f"the database {self._path} is damaged; restore it from a backup")

    def settle(self, database: Database) -> None:
        self._use_wal(database)
        make_private(self._path)

    def _use_wal(self, database: Database) -> None:
        """Switches to write-ahead logging, trying again because no busy handler covers this."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                mode = database.sql("PRAGMA journal_mode = WAL")
            except peewee.OperationalError:
                mode = []
            if mode == [("wal",)]:
                return
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the database {self._path} can't be switched to write-ahead logging; "
                    "it must lie on a local disk and not be locked by another program"
                )
            time.sleep(0.01)

    def failure_of(self, exc: Exception) -> StoreError:
        return failure_of(exc, self._path)
