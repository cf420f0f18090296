from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from llm_proxy.errors import StoreUnavailable
from llm_proxy.server.change_feed import ChangeFeed
from llm_proxy.server.channel import Change

pytestmark = pytest.mark.anyio


class ScriptedStore:
    """Gives its answers in turn, then an endless silence; an error is raised."""

    def __init__(self, *answers: tuple[int, list[Change]] | StoreUnavailable) -> None:
        self._answers = list(answers)
        self.asked: list[int] = []
        self.exhausted = asyncio.Event()

    async def read(self, last_id: int) -> tuple[int, Sequence[Change]]:
        self.asked.append(last_id)
        if not self._answers:
            self.exhausted.set()
            return last_id, []
        answer = self._answers.pop(0)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer


async def follow(store: ScriptedStore) -> tuple[ChangeFeed, list[Sequence[Change]]]:
    published: list[Sequence[Change]] = []

    async def publish(changes: Sequence[Change]) -> None:
        published.append(changes)

    feed = ChangeFeed(store.read, publish, last_id=7, interval_s=0.001)
    running = asyncio.create_task(feed.run())
    async with asyncio.timeout(30):
        await store.exhausted.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return feed, published


async def test_changes_are_published_once_each() -> None:
    first, second = [Change("token", "a")], [Change("project", "b")]
    store = ScriptedStore((9, first), (9, []), (10, second))
    feed, published = await follow(store)
    assert published == [first, second]
    assert store.asked[:4] == [7, 9, 9, 10]
    assert feed.is_healthy


async def test_failing_store_is_logged_once_and_nothing_is_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    down = StoreUnavailable("the disk is away")
    store = ScriptedStore(down, down, (8, [Change("token", "a")]))
    feed, published = await follow(store)
    assert published == [[Change("token", "a")]]
    assert store.asked[:4] == [7, 7, 7, 8]
    assert feed.is_healthy
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


async def test_feed_is_unhealthy_while_the_store_fails() -> None:
    store = ScriptedStore(StoreUnavailable("the disk is away"))

    async def publish(changes: Sequence[Change]) -> None:
        raise AssertionError("nothing changed")

    feed = ChangeFeed(store.read, publish, last_id=0, interval_s=0.001)
    running = asyncio.create_task(feed.run())
    async with asyncio.timeout(30):
        while feed.is_healthy:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not feed.is_healthy or store.exhausted.is_set()
