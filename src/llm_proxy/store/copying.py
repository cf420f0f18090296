"""All that a database holds, copied to another one, whatever the engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import Conflict
from llm_proxy.store.database import Store
from llm_proxy.store.hosts import refuse_while_served
from llm_proxy.store.opening import Database

Progress = Callable[[str, int], None]  # a table, and how many of its rows have been copied

_AT_ONCE = 200  # rows; SQLite takes 32,766 values in a statement
# What a server says of itself belongs to the database that it uses.
_NOT_COPIED = frozenset({"hosts", "migrations", "sqlite_sequence"})


def copy_database(
    source: Path | DatabaseUrl,
    target: Path | DatabaseUrl,
    *,
    replaces: bool,
    at: datetime,
    progress: Progress = lambda table, rows: None,
) -> dict[str, int]:
    """In one transaction of the target. The rows copied, by table; `replaces` what is there.

    Raises Conflict while a server uses either, and when the target holds data already.
    """
    if source == target:
        raise Conflict(f"{source} can't be copied to itself; name another target")
    old, new = Store(source, cipher=None), Store(target, cipher=None)
    try:
        old.open(migrate=False)
        new.open(migrate=True)
        with old.reading() as reader, new.writing() as writer:
            for store, database in ((old, reader), (new, writer)):
                refuse_while_served(database, store.shown, at)
            tables = _tables(reader)
            if not _is_blank(writer, tables):
                if not replaces:
                    raise Conflict(
                        f"the database {new.shown} holds data already; "
                        "choose an empty one, or replace it all by --force"
                    )
                for table in reversed(tables):
                    writer.sql(f"DELETE FROM {table}")
            return {table: _copy(table, reader, writer, progress) for table in tables}
    finally:
        old.close()
        new.close()


def count_rows(source: Path | DatabaseUrl) -> int:
    """All that there is to copy."""
    store = Store(source, cipher=None)
    try:
        store.open(migrate=False)
        with store.reading() as database:
            return sum(_count(database, table) for table in _tables(database))
    finally:
        store.close()


def _tables(database: Database) -> list[str]:
    """Each after those that it refers to."""
    names = [name for name in database.get_tables() if name not in _NOT_COPIED]
    refers = {name: {key.dest_table for key in database.get_foreign_keys(name)} for name in names}
    ordered: list[str] = []
    while len(ordered) < len(names):
        ordered += [
            name for name in names if name not in ordered and refers[name] - {name} <= set(ordered)
        ]
    return ordered


def _is_blank(database: Database, tables: Sequence[str]) -> bool:
    return not any(_count(database, table) for table in tables)


def _count(database: Database, table: str) -> int:
    return int(database.sql(f"SELECT count(*) FROM {table}")[0][0])


def _copy(table: str, reader: Database, writer: Database, progress: Progress) -> int:
    names = [column.name for column in reader.get_columns(table)]
    flags = _flags(writer, table)
    columns = ", ".join(names)
    marks = f"({', '.join('?' * len(names))})"
    copied = 0
    for rows in _parts(reader, table, names):
        values = [
            bool(value) if name in flags and value is not None else value
            for row in rows
            for name, value in zip(names, row, strict=True)
        ]
        into = f"INSERT INTO {table} ({columns}) VALUES {', '.join([marks] * len(rows))}"
        writer.sql(into, values)
        copied += len(rows)
        progress(table, len(rows))
    if _numbers_itself(table, names):
        writer.number_from(table, reader.highest_id(table))
    return copied


def _flags(database: Database, table: str) -> set[str]:
    """PostgreSQL takes no number for a boolean."""
    columns = database.get_columns(table)
    return {column.name for column in columns if column.data_type.lower() == "boolean"}


def _parts(database: Database, table: str, names: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
    """In the order of the primary key, so that memory holds one part at a time."""
    keys = list(database.get_primary_keys(table))
    places = [names.index(key) for key in keys]
    key = ", ".join(keys)
    chosen, order = f"SELECT {', '.join(names)} FROM {table}", f"ORDER BY {key} LIMIT {_AT_ONCE}"
    rows = database.sql(f"{chosen} {order}")
    while rows:
        yield rows
        last = tuple(rows[-1][place] for place in places)
        marks = ", ".join("?" * len(last))
        rows = database.sql(f"{chosen} WHERE ({key}) > ({marks}) {order}", last)


def _numbers_itself(table: str, names: Sequence[str]) -> bool:
    return table in ("changes", "leases") and "id" in names
