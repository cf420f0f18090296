from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.secrets import Secret
from llm_proxy.store.changes import last_change_id
from llm_proxy.store.database import Store
from llm_proxy.store.engines.postgres import PostgresEngine, in_postgres_words
from tests.postgres_server import PostgresServer


@pytest.fixture
def open_store() -> Iterator[Callable[[DatabaseUrl], Store]]:
    stores = []

    def open(url: DatabaseUrl) -> Store:
        stores.append(Store(url, cipher=None, patience_s=0.2, pool_size=3))
        stores[-1].open(migrate=True)
        return stores[-1]

    yield open
    for store in stores:
        store.close()


OpenStore = Callable[[DatabaseUrl], Store]


def test_a_server_that_stops_is_missed_and_found_again(
    own_postgres_server: PostgresServer, open_store: OpenStore
) -> None:
    store = open_store(own_postgres_server.new_database())
    own_postgres_server.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="can't be reached .*; is it running?"):
            last_change_id(store)
    own_postgres_server.start()
    assert last_change_id(store) == 0


def test_a_restart_between_two_calls_is_not_noticed(
    own_postgres_server: PostgresServer, open_store: OpenStore
) -> None:
    store = open_store(own_postgres_server.new_database())
    own_postgres_server.stop()
    own_postgres_server.start()
    assert last_change_id(store) == 0


def test_a_server_that_hangs_is_given_up_in_time(
    own_postgres_server: PostgresServer, open_store: OpenStore
) -> None:
    store = open_store(own_postgres_server.new_database())
    own_postgres_server.pause()
    begun = time.monotonic()
    try:
        with pytest.raises(StoreUnavailable, match="took too long to answer"):
            last_change_id(store)
    finally:
        own_postgres_server.resume()
    assert time.monotonic() - begun < 15  # and not for as long as it hangs
    assert last_change_id(store) == 0


def test_a_server_that_hangs_within_a_transaction_is_given_up(
    own_postgres_server: PostgresServer, open_store: OpenStore
) -> None:
    store = open_store(own_postgres_server.new_database())
    try:
        with pytest.raises(StoreUnavailable, match="took too long"), store.writing() as database:
            own_postgres_server.pause()
            database.sql("SELECT 1")
    finally:
        own_postgres_server.resume()
    assert last_change_id(store) == 0


def test_a_statement_that_takes_too_long_is_ended(
    postgres_url: DatabaseUrl, open_store: OpenStore
) -> None:
    store = open_store(postgres_url)
    with pytest.raises(StoreUnavailable, match="took too long to answer"), store.reading() as one:
        one.sql("SELECT pg_sleep(30)")
    assert last_change_id(store) == 0


def test_a_connection_that_is_cut_within_a_transaction_is_replaced(
    postgres_url: DatabaseUrl, postgres_server: PostgresServer, open_store: OpenStore
) -> None:
    store = open_store(postgres_url)
    with pytest.raises(StoreUnavailable), store.writing() as database:
        [(pid,)] = database.sql("SELECT pg_backend_pid()")
        os.kill(pid, signal.SIGTERM)
        database.sql("SELECT pg_sleep(5)")
    assert last_change_id(store) == 0


def test_reading_can_not_write(postgres_url: DatabaseUrl, open_store: OpenStore) -> None:
    store = open_store(postgres_url)
    with pytest.raises(StoreUnavailable, match="takes no writes"), store.reading() as database:
        database.sql("DELETE FROM changes")


def test_what_is_wrong_with_a_login_or_a_database_is_told(
    postgres_server: PostgresServer, postgres_url: DatabaseUrl
) -> None:
    for url, reason in (
        (replace(postgres_url, name="nowhere"), "doesn't exist; make it with: createdb"),
        (replace(postgres_url, user="nobody"), "refuses the user or the password"),
        (replace(postgres_url, host="/nowhere"), "can't be reached .No such file"),
        (replace(postgres_url, host="127.0.0.1", port=1), "can't be reached .Connection refused"),
    ):
        secret = replace(url, password=Secret("sesame"))
        with pytest.raises(StoreError, match=reason) as caught:
            PostgresEngine(secret, patience_s=1).connect()
        assert "sesame" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_tls_is_demanded_when_the_url_says_so(postgres_url: DatabaseUrl) -> None:
    """The server of the tests listens on a Unix socket, where there is none."""
    url = replace(postgres_url, host="127.0.0.1", port=1, sslmode="verify-full", sslrootcert="/no")
    with pytest.raises(StoreError, match="root certificate|can't be reached"):
        PostgresEngine(url, patience_s=1).connect()


def test_a_user_that_may_not_make_tables_is_told(
    postgres_server: PostgresServer, postgres_url: DatabaseUrl
) -> None:
    role = f"u{postgres_url.name}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    store = Store(replace(postgres_url, user=role), cipher=None)
    with pytest.raises(StoreError, match="denies its user|no schema"):
        store.open(migrate=True)
    postgres_server.execute(f"DROP ROLE {role}")


def test_words_are_those_of_postgresql() -> None:
    assert in_postgres_words(
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, long LONGTEXT, short TEXT, "
        "is_on INTEGER NOT NULL CHECK (is_on IN (0, 1)), number INTEGER)"
    ) == (
        "CREATE TABLE t (id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "
        'long TEXT COLLATE "C", short TEXT COLLATE "C", is_on BOOLEAN NOT NULL, number BIGINT)'
    )
