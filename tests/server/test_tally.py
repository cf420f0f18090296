from __future__ import annotations

import asyncio

import pytest

from llm_proxy.measurements import Series, Snapshot, Totals
from llm_proxy.server.tally import Tally

pytestmark = pytest.mark.anyio


class Counter:
    """A worker that counts, and answers while it isn't held."""

    def __init__(self) -> None:
        self.requests = 0
        self.snapshot = Snapshot()
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def measure(self, *, timeout_s: float) -> None:
        self.asked += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self.may_answer.wait()
        except TimeoutError:
            return
        self.snapshot = Snapshot(
            counters=(Series("requests", (), self.requests),), gauges=(Series("open", (), 1),)
        )


def requests(totals: Totals) -> int | float:
    return totals.counters.get(("requests", ()), 0)


async def test_workers_are_added_up() -> None:
    tally, one, two = Tally(fresh_s=0), Counter(), Counter()
    tally.add(one)
    tally.add(two)
    one.requests, two.requests = 3, 4
    totals = await tally.collect()
    assert requests(totals) == 7
    assert totals.gauges["open", ()] == 2


async def test_counters_of_a_worker_that_ended_stay() -> None:
    tally, one, two = Tally(fresh_s=0), Counter(), Counter()
    tally.add(one)
    one.requests = 3
    await tally.collect()
    tally.retire(one)
    tally.add(two)
    two.requests = 1
    totals = await tally.collect()
    assert requests(totals) == 4
    assert totals.gauges["open", ()] == 1
    assert requests(await tally.collect()) == 4  # it was not counted once more


async def test_of_a_slow_worker_the_last_numbers_are_used() -> None:
    tally, slow, quick = Tally(timeout_s=0.2, fresh_s=0), Counter(), Counter()
    tally.add(slow)
    tally.add(quick)
    slow.requests = quick.requests = 5
    assert requests(await tally.collect()) == 10
    slow.may_answer.clear()
    slow.requests = quick.requests = 6
    assert requests(await tally.collect()) == 11


async def test_workers_are_not_asked_again_at_once() -> None:
    tally, worker = Tally(fresh_s=60), Counter()
    tally.add(worker)
    await asyncio.gather(*(tally.collect() for _ in range(10)))
    await tally.collect()
    assert worker.asked == 1


async def test_one_who_leaves_while_waiting_does_not_keep_others_waiting() -> None:
    tally, worker = Tally(timeout_s=60, fresh_s=0), Counter()
    tally.add(worker)
    worker.may_answer.clear()
    first, second = (asyncio.create_task(tally.collect()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    worker.may_answer.set()
    worker.requests = 1
    async with asyncio.timeout(30):
        assert requests(await second) == 1
