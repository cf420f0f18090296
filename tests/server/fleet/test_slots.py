from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.server.fleet.connections import RedisUnavailable
from llm_proxy.server.fleet.scripts import Script
from llm_proxy.server.fleet.slots import FleetSlots

pytestmark = pytest.mark.anyio


class Redis:
    """What the script does, in memory; it may lose a question, or its answer."""

    def __init__(self) -> None:
        self.hosts: dict[str, dict[str, tuple[int, int]]] = {}  # by key: count and message
        self.loses: list[str] = []  # "question" or "answer", for the next calls
        self.is_asked = True
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def held(self, key: str) -> int:
        return sum(count for count, _ in self.hosts.get(f"slots:{key}", {}).values())

    async def call(self, script: Script, key: str, *arguments: Any) -> int:
        self.calls += 1
        if not self.is_asked:
            raise RedisUnavailable("away", was_sent=False)
        await self.gate.wait()
        await asyncio.sleep(0)
        loss = self.loses.pop(0) if self.loses else ""
        if loss == "question":
            raise RedisUnavailable("lost")
        granted = self._take(self.hosts.setdefault(key, {}), *arguments)
        if loss == "answer":
            raise RedisUnavailable("lost")
        return granted

    def _take(
        self,
        hosts: dict[str, tuple[int, int]],
        host: str,
        held: int,
        wanted: int,
        most: int,
        *rest: int,
    ) -> int:
        _, number = rest
        if hosts.get(host, (0, 0))[1] >= number:
            return -1
        others = sum(count for name, (count, _) in hosts.items() if name != host)
        granted = max(0, min(wanted, most - others - held))
        hosts[host] = held + granted, number
        return granted


@asynccontextmanager
async def _running(slots: FleetSlots) -> AsyncIterator[None]:
    task = asyncio.create_task(slots.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _slots(redis: Redis, host: str = "a", *, lasts: bool = True) -> FleetSlots:
    return FleetSlots(redis, host=host, lasts_without_redis=lasts, tell_every_s=60)


async def test_hosts_share_the_slots() -> None:
    redis = Redis()
    one, other = _slots(redis, "a"), _slots(redis, "b")
    assert await one.take("total", 5, 3, "worker 1") == 3
    assert await other.take("total", 5, 3, "worker 1") == 2
    assert await one.take("total", 5, 1, "worker 2") == 0
    assert (one.held, other.held) == (3, 2)


async def test_what_is_full_on_this_host_needs_no_question() -> None:
    redis = Redis()
    slots = _slots(redis)
    await slots.take("total", 2, 2, "worker")
    calls = redis.calls
    assert await slots.take("total", 2, 1, "worker") == 0
    assert redis.calls == calls


async def test_slots_given_back_are_soon_others() -> None:
    redis = Redis()
    one, other = _slots(redis, "a"), _slots(redis, "b")
    await one.take("total", 2, 2, "worker")
    one.give("total", 1, "worker")
    await one.tell()
    assert await other.take("total", 2, 2, "worker") == 1
    one.give("total", 1, "worker")
    await one.tell()
    assert redis.held("total") == 1
    assert one.held == 0


async def test_nobody_gives_back_more_than_it_holds() -> None:
    redis = Redis()
    slots = _slots(redis)
    await slots.take("total", 5, 2, "worker 1")
    slots.give("total", 3, "worker 2")
    slots.give("no such key", 3, "worker 1")
    assert slots.held == 2
    slots.give("total", 9, "worker 1")
    assert slots.held == 0


async def test_ended_holder_holds_nothing() -> None:
    redis = Redis()
    slots = _slots(redis)
    await slots.take("total", 9, 2, "worker 1")
    await slots.take("token:x", 9, 2, "worker 1")
    await slots.take("total", 9, 3, "worker 2")
    slots.forget("worker 1")
    await slots.tell()
    assert (redis.held("total"), redis.held("token:x")) == (3, 0)


async def test_holder_that_ends_while_it_takes_holds_nothing() -> None:
    redis = Redis()
    slots = _slots(redis)
    redis.gate.clear()
    taking = asyncio.create_task(slots.take("total", 9, 2, "worker"))
    await asyncio.sleep(0)
    slots.forget("worker")
    redis.gate.set()
    assert await taking == 0
    await slots.tell()
    assert (slots.held, redis.held("total")) == (0, 0)
    assert await slots.take("total", 9, 2, "worker") == 2  # a name once forgotten is a name again


async def test_cancelled_question_is_put_right() -> None:
    redis = Redis()
    slots = _slots(redis)
    redis.gate.clear()
    taking = asyncio.create_task(slots.take("total", 9, 2, "worker"))
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    redis.gate.set()
    await slots.tell()
    assert (slots.held, redis.held("total")) == (0, 0)


@pytest.mark.parametrize("loss", ["question", "answer"])
async def test_lost_message_leaves_nothing_taken(loss: str) -> None:
    redis = Redis()
    slots = _slots(redis, lasts=False)
    redis.loses = [loss]
    with pytest.raises(RedisUnavailable):
        await slots.take("total", 9, 2, "worker")
    await slots.tell()
    assert (slots.held, redis.held("total")) == (0, 0)


async def test_without_redis_the_limit_holds_on_this_host() -> None:
    redis = Redis()
    slots = _slots(redis)
    redis.is_asked = False
    assert await slots.take("total", 3, 2, "worker 1") == 2
    assert await slots.take("total", 3, 2, "worker 2") == 1
    assert await slots.take("total", 3, 2, "worker 2") == 0
    redis.is_asked = True
    assert await slots.tell()
    assert redis.held("total") == 3


async def test_refusals_without_redis_leave_nothing_in_memory() -> None:
    redis = Redis()
    slots = _slots(redis, lasts=False)
    redis.is_asked = False
    for number in range(100):
        with pytest.raises(RedisUnavailable):
            await slots.take(f"client_ip:{number}", 3, 1, "worker")
    assert slots.known_keys == 0


async def test_redis_that_forgot_is_told_again() -> None:
    redis = Redis()
    slots = _slots(redis)
    async with _running(slots):
        await slots.take("total", 5, 3, "worker")
        redis.hosts.clear()
        slots.tell_again()
        async with asyncio.timeout(30):
            while redis.held("total") != 3:
                await asyncio.sleep(0)


async def test_what_is_held_is_told_every_few_seconds() -> None:
    redis = Redis()
    slots = FleetSlots(redis, host="a", lasts_without_redis=True, tell_every_s=0.02)
    async with _running(slots):
        await slots.take("total", 5, 3, "worker")
        for _ in range(2):
            redis.hosts.clear()
            async with asyncio.timeout(30):
                while redis.held("total") != 3:
                    await asyncio.sleep(0.005)


async def test_at_the_end_all_is_given_back() -> None:
    redis = Redis()
    slots = _slots(redis)
    await slots.take("total", 9, 2, "worker 1")
    await slots.take("token:x", 9, 2, "worker 2")
    await slots.give_all(within_s=5)
    assert (slots.held, redis.held("total"), redis.held("token:x")) == (0, 0, 0)


async def test_end_does_not_wait_for_a_redis_that_is_stuck() -> None:
    redis = Redis()
    slots = _slots(redis)
    await slots.take("total", 9, 2, "worker 1")
    redis.gate.clear()
    await slots.give_all(within_s=0.01)
    assert slots.held == 0


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "give", "forget", "tell", "lose"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["worker 1", "worker 2"]),
        st.integers(1, 4),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(acts=ACTS, most=st.integers(1, 6))
async def test_whatever_happens_no_more_than_the_most_is_held(
    acts: list[tuple[str, str, str, int]], most: int
) -> None:
    redis = Redis()
    hosts = {name: _slots(redis, name, lasts=False) for name in "ab"}
    tasks: list[asyncio.Task[int]] = []
    for act, host, holder, number in acts:
        slots = hosts[host]
        if act == "take":
            tasks.append(asyncio.create_task(slots.take("total", most, number, holder)))
        elif act == "give":
            slots.give("total", number, holder)
        elif act == "forget":
            slots.forget(holder)
        elif act == "lose":
            redis.loses.append("answer" if number % 2 else "question")
        else:
            await slots.tell()
        await asyncio.sleep(0)
        assert hosts["a"].held + hosts["b"].held <= most
    await asyncio.gather(*tasks, return_exceptions=True)
    assert hosts["a"].held + hosts["b"].held <= most
    redis.loses.clear()
    for slots in hosts.values():
        slots.forget("worker 1")
        slots.forget("worker 2")
        await slots.tell()
        assert (slots.held, slots.known_keys) == (0, 0)
    assert redis.held("total") == 0
