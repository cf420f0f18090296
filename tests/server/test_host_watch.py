from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_proxy.server.host_watch import LOST_AFTER_BEATS, HostWatch
from llm_proxy.store.database import Store
from llm_proxy.store.hosts import beat
from llm_proxy.store.leases import take_lease
from tests.server.token_store import MADE_AT, TOKEN, counted, open_token_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_token_store(tmp_path / "store.db", cap=100)
    yield store
    store.close()


async def beat_often(watch: HostWatch, times: int) -> None:
    for _ in range(times):
        await watch.beat()


async def test_a_host_that_says_nothing_for_long_is_written_off(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    beat(store, "a", MADE_AT)
    take_lease(store, TOKEN, 10, host="a", holder="w", at=MADE_AT)
    watch = HostWatch(store, host="b")
    await beat_often(watch, LOST_AFTER_BEATS)
    assert counted(store) == (0, 10, 1)
    await watch.beat()
    assert counted(store) == (10, 0, 0)
    assert "host a is lost: its 1 leases pass for spent" in caplog.text
    await watch.beat()


async def test_each_word_of_another_host_is_good_for_as_long_again(store: Store) -> None:
    """Whatever its clock says."""
    beat(store, "a", datetime(2040, 1, 1, tzinfo=UTC))
    take_lease(store, TOKEN, 10, host="a", holder="w", at=MADE_AT)
    watch = HostWatch(store, host="b")
    await beat_often(watch, LOST_AFTER_BEATS)
    beat(store, "a", datetime(2020, 1, 1, tzinfo=UTC))
    await beat_often(watch, LOST_AFTER_BEATS)
    assert counted(store) == (0, 10, 1)


async def test_own_leases_are_never_written_off(store: Store) -> None:
    take_lease(store, TOKEN, 10, host="b", holder="w", at=MADE_AT)
    await beat_often(HostWatch(store, host="b"), LOST_AFTER_BEATS + 2)
    assert counted(store) == (0, 10, 1)


async def test_it_beats_until_closed_and_outlives_a_store_that_fails(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    watch = HostWatch(store, host="b", beat_every_s=0.001)
    await watch.start()

    async def word() -> str:
        return (await store.run(beat, "a", MADE_AT))["b"]

    first = await word()
    async with asyncio.timeout(10):
        while await word() == first:
            await asyncio.sleep(0.002)
    store.close()
    async with asyncio.timeout(10):
        while "can't be told that this one lives" not in caplog.text:
            await asyncio.sleep(0.002)
    store.open(migrate=False)
    first = await word()
    async with asyncio.timeout(10):
        while await word() == first:
            await asyncio.sleep(0.002)
    await watch.close()
    assert "b" not in await store.run(beat, "a", MADE_AT)  # it has taken its leave
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1


async def test_one_that_was_never_started_may_be_closed(store: Store) -> None:
    await HostWatch(store, host="b").close()
