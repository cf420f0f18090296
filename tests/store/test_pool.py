from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import StoreUnavailable
from llm_proxy.store.opening import engine_of
from llm_proxy.store.pool import Pool


@pytest.fixture
def pool(database_target: Path | DatabaseUrl) -> Iterator[Pool]:
    engine = engine_of(database_target, patience_s=0.2)
    pool = Pool(engine, size=1, patience_s=0.05)
    pool.add(engine.connect(create=True))
    yield pool
    pool.close()


def test_a_connection_that_works_is_kept(pool: Pool) -> None:
    with pool.transaction("read") as first:
        pass
    with pool.transaction("read") as second:
        assert second is first


def test_a_connection_is_kept_after_a_failure_of_its_user(pool: Pool) -> None:
    with pytest.raises(ValueError, match="mine"), pool.transaction("read") as first:
        raise ValueError("mine")
    with pool.transaction("read") as second:
        assert second is first
        assert second.sql("SELECT 1") == [(1,)]


def test_who_waits_too_long_for_a_connection_is_told(pool: Pool) -> None:
    inside, release = threading.Event(), threading.Event()

    def hold() -> None:
        with pool.transaction("read"):
            inside.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    with pytest.raises(StoreUnavailable, match="too slow to keep up"), pool.transaction("read"):
        raise AssertionError("not reached")
    release.set()
    holder.join(10)
    with pool.transaction("read"):
        pass


def test_what_comes_back_after_the_end_is_closed(pool: Pool) -> None:
    with pool.transaction("read") as database:
        pool.close()
    assert database.is_closed()


def test_after_the_end_there_is_none(pool: Pool) -> None:
    pool.close()
    with pytest.raises(StoreUnavailable, match=r"too slow|is closed"), pool.transaction("read"):
        raise AssertionError("not reached")
