"""MySQL and MariaDB, through PyMySQL."""

from __future__ import annotations

import hashlib
import re
import select
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any, Final

import peewee
import pymysql

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.store.engines.connection import MIGRATION_S, Database
from llm_proxy.store.engines.engine import Engine
from llm_proxy.store.engines.mysql_failures import failure_of
from llm_proxy.store.engines.mysql_schema import in_mysql_words, what_it_makes
from llm_proxy.store.engines.placeholders import with_percent_s

_BEGIN: Final = {
    "read": ("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",),
    # Reading a row for update makes no snapshot yet: what follows sees all that was committed
    # before the lock was had. The row of the first migration is always there.
    "write": (
        "START TRANSACTION",
        "SELECT name FROM migrations ORDER BY name LIMIT 1 FOR UPDATE",
    ),
}
_LOCK_WAIT_S: Final = MIGRATION_S / 10


class MysqlConnection(Database, peewee.MySQLDatabase):
    # Of texts whose collation tells cases apart, as all of ours do.
    operations = peewee.MySQLDatabase.operations | {"ILIKE": "COLLATE utf8mb4_general_ci LIKE"}

    def __init__(self, url: DatabaseUrl, *, patience_s: float) -> None:
        super().__init__(url.name, thread_safe=False, autoconnect=False)
        self.shown = str(url)
        self._url = url
        self._patience_s = patience_s

    def _connect(self) -> pymysql.Connection[Any]:
        connection = pymysql.connect(**_parameters(self._url, self._patience_s))
        wait_s = max(ceil(self._patience_s), 1)
        with connection.cursor() as cursor:
            cursor.execute(
                "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            )
            cursor.execute(
                f"SET SESSION innodb_lock_wait_timeout = {wait_s}, lock_wait_timeout = {wait_s}, "
                "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ANSI_QUOTES'"
            )
            limit = _statement_limit(connection, _statement_s(self._patience_s))
            cursor.execute(f"SET SESSION {limit}")
        return connection

    @property
    def _is_mariadb(self) -> bool:
        return "mariadb" in _version(self.driver)

    def written(self, statement: str) -> str:
        return with_percent_s(statement)

    def define(self, statement: str) -> None:
        """Statements of the schema can't be undone here, so each may be made again."""
        made = what_it_makes(statement)
        if made is not None and self._has(*made) != _removes(statement):
            return
        # Without padding: to the others `a` and `a ` are two names as well.
        collation = "utf8mb4_nopad_bin" if self._is_mariadb else "utf8mb4_0900_bin"
        self.sql(in_mysql_words(statement, collation=collation))

    def _has(self, view: str, table: str, name: str) -> bool:
        column = {"columns": "column_name", "statistics": "index_name"}.get(view, "table_name")
        found = self.sql(
            f"SELECT 1 FROM information_schema.{view} "
            f"WHERE table_schema = database() AND table_name = ? AND {column} = ? LIMIT 1",
            (table, name),
        )
        return bool(found)

    def begin(self, kind: str | None = None) -> None:
        try:
            for statement in _BEGIN[kind or "read"]:
                self.sql(statement)
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        """The server does it by itself when a connection is gone."""
        if self.driver.open:
            peewee.MySQLDatabase.rollback(self)

    @contextmanager
    def migrating(self) -> Iterator[None]:
        """The lock is the session's: it ends with the connection of whoever holds it."""
        name = f"llm-proxy {hashlib.sha256(self._url.name.encode()).hexdigest()[:40]}"
        connection = self.driver
        connection._read_timeout = connection._write_timeout = MIGRATION_S
        self.sql(f"SET SESSION {_statement_limit(connection, MIGRATION_S)}")
        if self.sql("SELECT GET_LOCK(?, ?)", (name, _LOCK_WAIT_S)) != [(1,)]:
            raise StoreUnavailable(
                f"the database {self.shown} has been migrated by another process for too long; "
                "try again when it is done"
            )
        try:
            yield
        finally:
            if connection.open:
                self.sql("SELECT RELEASE_LOCK(?)", (name,))
                self.sql(
                    f"SET SESSION {_statement_limit(connection, _statement_s(self._patience_s))}"
                )
            connection._read_timeout = connection._write_timeout = _socket_s(self._patience_s)

    def claim(self) -> None:
        if self.table_exists("migrations"):
            return
        if self.get_tables():
            raise StoreError(
                f"the database {self.shown} holds tables of another program and is left alone; "
                "make a database of its own for llm-proxy"
            )
        self.make_migrations_table()

    def is_broken(self) -> bool:
        if self.is_closed():
            return True
        connection = self.driver
        # Between statements nothing is on its way: what there is to read is a farewell.
        return not connection.open or _has_something_to_read(connection._sock)

    def highest_id(self, table: str) -> int:
        if not self._is_mariadb:
            self.sql("SET SESSION information_schema_stats_expiry = 0")  # else it is a day old
        [(following,)] = self.sql(
            "SELECT auto_increment FROM information_schema.tables "
            "WHERE table_schema = database() AND table_name = ?",
            (table,),
        )
        return int(following or 1) - 1

    def number_from(self, table: str, highest: int) -> None:
        """It counts on from the ids that are there; another word ends the transaction."""


class MysqlEngine(Engine):
    is_shared = True
    driver_errors = (pymysql.MySQLError,)

    def __init__(self, url: DatabaseUrl, *, patience_s: float) -> None:
        self.shown = str(url)
        self._url = url
        self._patience_s = patience_s

    def connect(self, *, create: bool = False) -> MysqlConnection:
        database = MysqlConnection(self._url, patience_s=self._patience_s)
        with self.translated():
            database.connect()
        return database

    def failure_of(self, exc: Exception) -> StoreError:
        return failure_of(exc, self._url)


def _removes(statement: str) -> bool:
    return statement.startswith("DROP") or re.search(r" DROP COLUMN ", statement) is not None


def _parameters(url: DatabaseUrl, patience_s: float) -> dict[str, Any]:
    where = {"unix_socket": url.host} if url.is_on_unix_socket else {"host": url.host}
    return {
        **where,
        "port": url.port,
        "user": url.user,
        "password": "" if url.password is None else url.password.reveal(),
        "database": url.name,
        "charset": "utf8mb4",
        "autocommit": True,
        "connect_timeout": url.connect_timeout_s or max(ceil(patience_s), 1),
        "read_timeout": _socket_s(patience_s),
        "write_timeout": _socket_s(patience_s),
        # Rows that an UPDATE found, not only those whose values it altered: as elsewhere.
        "client_flag": pymysql.constants.CLIENT.FOUND_ROWS,
        **_tls(url),
    }


def _statement_s(patience_s: float) -> float:
    """More than a lock is waited for, so that a lock is told from a slow statement."""
    return max(ceil(patience_s), 1) + 0.5


def _socket_s(patience_s: float) -> float:
    """The server gives up by itself; a little later it is taken for stuck."""
    return _statement_s(patience_s) + 1.0


def _tls(url: DatabaseUrl) -> dict[str, Any]:
    if url.sslmode == "disable" or url.is_on_unix_socket:
        return {"ssl_disabled": True}
    if url.sslmode == "prefer":
        return {}
    try:
        context = ssl.create_default_context(cafile=url.sslrootcert)
        if url.sslcert is not None:
            context.load_cert_chain(url.sslcert, url.sslkey)
    except OSError as exc:  # ssl.SSLError is one, too
        raise StoreError(
            f"TLS to the database {url} can't be set up: {exc.strerror or exc}; "
            "check the PEM files of sslrootcert, sslcert and sslkey"
        ) from exc
    context.check_hostname = url.sslmode == "verify-full"
    if url.sslmode == "require":
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def _statement_limit(connection: pymysql.Connection[Any], limit_s: float) -> str:
    if "mariadb" in _version(connection):
        return f"max_statement_time = {limit_s:g}"
    return f"max_execution_time = {ceil(limit_s * 1000)}"


def _has_something_to_read(sock: Any) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _version(connection: pymysql.Connection[Any]) -> str:
    return str(connection.get_server_info()).lower()  # type: ignore[no-untyped-call]
