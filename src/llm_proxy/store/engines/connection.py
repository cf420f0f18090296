"""One connection to a database of any engine: what the functions of the store work with."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import peewee

Kind = Literal["read", "write"]

MIGRATION_S = 600.0  # one step may rewrite a large table
_MIGRATIONS_TABLE = (
    "CREATE TABLE migrations (name TEXT NOT NULL PRIMARY KEY, applied_at TEXT NOT NULL)"
)


class Database(peewee.Database):
    """`atomic("read")` is one consistent view; writers inside `atomic("write")` go one by one."""

    shown: str  # in messages: without a password
    lacks_migrations: ClassVar[str] = (
        "isn't an llm-proxy database yet; make it one with: llm-proxy db migrate"
    )

    def sql(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a plain statement, with `?` for parameters on every engine."""
        cursor = self.execute_sql(self.written(statement), parameters)  # type: ignore[no-untyped-call]
        return [] if cursor.description is None else list(cursor.fetchall())

    @property
    def driver(self) -> Any:
        """The connection as its driver knows it."""
        return self.connection()  # type: ignore[no-untyped-call]

    @abc.abstractmethod
    def written(self, statement: str) -> str:
        """With the placeholders of this engine."""

    @abc.abstractmethod
    def define(self, statement: str) -> None:
        """A statement of the schema, in SQLite's words."""

    @abc.abstractmethod
    def begin(self, kind: str | None = None) -> None:
        """Of a `Kind`. A writer is alone until its commit: `changes` are numbered in order."""

    @abc.abstractmethod
    def migrating(self) -> AbstractContextManager[None]:
        """Alone, by a lock that ends with its holder, and all or nothing where that can be."""

    @abc.abstractmethod
    def claim(self) -> None:
        """Makes a blank database ours, under the lock; raises StoreError when it is another's."""

    @abc.abstractmethod
    def is_broken(self) -> bool:
        """Whether nothing more can come of this connection. Asks nobody."""

    @abc.abstractmethod
    def highest_id(self, table: str) -> int:
        """That a column `id` which numbers itself ever gave out."""

    @abc.abstractmethod
    def number_from(self, table: str, highest: int) -> None:
        """The next id will be above `highest`."""

    def make_migrations_table(self) -> None:
        self.define(_MIGRATIONS_TABLE)
