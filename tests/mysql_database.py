"""Databases on the MySQL or MariaDB that TEST_MYSQL_URL names, if it does."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pymysql

from llm_proxy.database_url import DatabaseUrl, parse_database_url


@contextlib.contextmanager
def mysql_database(server: str) -> Iterator[DatabaseUrl]:
    """A blank one, dropped afterwards."""
    url = parse_database_url(server)
    assert isinstance(url, DatabaseUrl)
    name = f"test_{uuid.uuid4().hex}"
    _execute(url, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    try:
        yield replace(url, name=name)
    finally:
        _execute(url, f"DROP DATABASE {name}")


def _execute(url: DatabaseUrl, statement: str) -> None:
    connection = pymysql.connect(
        unix_socket=url.host if url.is_on_unix_socket else None,
        host=None if url.is_on_unix_socket else url.host,
        port=url.port,
        user=url.user,
        password="" if url.password is None else url.password.reveal(),
    )
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)
