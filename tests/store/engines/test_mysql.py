from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from llm_proxy.database_url import DatabaseUrl, parse_database
from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.secrets import Secret
from llm_proxy.store.changes import last_change_id
from llm_proxy.store.database import Store
from llm_proxy.store.engines.mysql import MysqlEngine
from tests.mysql_database import mysql_database

SERVER = os.environ.get("TEST_MYSQL_URL")
needs_server = pytest.mark.skipif(SERVER is None, reason="TEST_MYSQL_URL names no server")


@pytest.fixture
def store() -> Iterator[Store]:
    assert SERVER is not None
    with mysql_database(SERVER) as url:
        store = Store(url, cipher=None, patience_s=0.2)
        store.open(migrate=True)
        yield store
        store.close()


@needs_server
def test_a_statement_that_takes_too_long_is_ended(store: Store) -> None:
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match="took too long to answer"), store.reading() as one:
        one.sql("SELECT count(*) FROM information_schema.tables WHERE sleep(30) = 0")
    assert time.monotonic() - begun < 20  # of 30
    assert last_change_id(store) == 0


@needs_server
def test_a_connection_that_was_cut_while_idle_is_replaced(store: Store) -> None:
    with store.reading() as database:
        [(number,)] = database.sql("SELECT connection_id()")
    other = Store(store.target, cipher=None)
    other.open(migrate=False)
    with other.reading() as database:
        database.sql(f"KILL {number}")
    other.close()
    assert last_change_id(store) == 0


@needs_server
def test_what_is_wrong_with_a_login_or_a_database_is_told(store: Store) -> None:
    assert isinstance(store.target, DatabaseUrl)
    for url, reason in (
        (replace(store.target, name="nowhere"), "doesn't exist"),
        (replace(store.target, user="nobody", password=Secret("sesame")), "refuses the user"),
    ):
        with pytest.raises(StoreError, match=reason) as caught:
            MysqlEngine(url, patience_s=1).connect()
        assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("query", ["", "?sslmode=disable", "?sslmode=require"])
def test_a_server_that_is_not_there_is_told(query: str) -> None:
    url = parse_database(f"mysql://u:sesame@127.0.0.1:1/d{query}")
    assert isinstance(url, DatabaseUrl)
    with pytest.raises(StoreUnavailable, match=r"can't be reached .*; is it running\?") as caught:
        MysqlEngine(url, patience_s=1).connect()
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("query", ["sslrootcert=/no", "sslcert=/no&sslkey=/no"])
def test_files_of_tls_that_can_not_be_read_are_told(query: str) -> None:
    url = parse_database(f"mysql://u:sesame@127.0.0.1:1/d?sslmode=verify-full&{query}")
    assert isinstance(url, DatabaseUrl)
    with pytest.raises(StoreError, match="TLS .* No such file.*; check the PEM files"):
        MysqlEngine(url, patience_s=1).connect()
