"""The scripts in a real server: what they decide, and what they leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_proxy.gcra import IssuingGcra
from llm_proxy.limits import RateLimit
from llm_proxy.redis_address import RedisAddress
from llm_proxy.server.fleet.connections import RedisConnections, ScriptCall
from llm_proxy.server.fleet.scripts import GIVE_RATE, PREFIX, TAKE_RATE, TAKE_SLOTS, Script
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

QUICK = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Asker:
    def __init__(self, connections: RedisConnections) -> None:
        self._connections = connections
        self.key = uuid4().hex

    async def ask(self, script: Script, *arguments: str | int | float) -> Any:
        answers = await self._connections.run([ScriptCall(script, self.key, arguments)])
        return answers[0]

    async def take(self, rate: RateLimit, lag_ms: int, wanted: int) -> tuple[int, int, int]:
        permits, wait_us, now_us = await self.ask(TAKE_RATE, *_terms(rate, lag_ms), wanted)
        return permits, wait_us, now_us

    async def give(self, rate: RateLimit, lag_ms: int, permits: int, taken_us: int) -> int:
        now_us = await self.ask(GIVE_RATE, *_terms(rate, lag_ms), permits, taken_us)
        assert isinstance(now_us, int)
        return now_us

    async def slots(
        self, host: str, held: int, wanted: int, most: int, *, number: int, kept_ms: int = 60_000
    ) -> int:
        granted = await self.ask(TAKE_SLOTS, host, held, wanted, most, kept_ms, number)
        assert isinstance(granted, int)
        return granted


def _terms(rate: RateLimit, lag_ms: int) -> tuple[int, int, int]:
    """Of a rate whose interval is a whole number of microseconds."""
    return rate.window_s * 1_000_000 // rate.requests, rate.burst, lag_ms * 1000


class Twin:
    """The same in memory, at the same moments."""

    def __init__(self, rate: RateLimit, lag_ms: int) -> None:
        self._rate = rate
        self._gcra = IssuingGcra(rate)
        self._lag = self._gcra.lag = lag_ms * 1_000_000
        self._exists = False

    def take(self, rate: RateLimit, now_us: int, wanted: int) -> tuple[int, int]:
        self._follow(rate, now_us)
        permits = self._gcra.take(now_us * 1000, wanted)
        self._exists |= permits > 0
        return permits, 0 if permits else -(-self._gcra.wait_for_issue(now_us * 1000) // 1000)

    def give(self, rate: RateLimit, now_us: int, permits: int, taken_us: int) -> None:
        if self._exists:
            self._follow(rate, now_us)
            self._gcra.give_back(permits, now_us * 1000, (now_us - taken_us) * 1000)

    def _follow(self, rate: RateLimit, now_us: int) -> None:
        if self._exists and rate != self._rate:
            self._gcra.alter(rate, now_us * 1000)
        elif not self._exists:
            self._gcra = IssuingGcra(rate)
        self._gcra.lag = self._lag
        self._rate = rate


@asynccontextmanager
async def _asking(server: RedisServer) -> AsyncIterator[Asker]:
    address = RedisAddress(host="127.0.0.1", port=server.port)
    connections = RedisConnections(address, most=1, timeout_s=10)
    await connections.open()
    try:
        yield Asker(connections)
    finally:
        await connections.close()


RATES = st.builds(
    RateLimit,
    requests=st.sampled_from([1, 50, 100, 1000, 8000]),
    window_s=st.just(1),
    burst=st.integers(1, 30),
)


@QUICK
@given(
    rates=st.lists(RATES, min_size=1, max_size=3),
    lag_ms=st.integers(0, 20),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["take", "take", "give", "alter"]),
            st.integers(1, 12),
            st.integers(0, 12),
        ),
        min_size=5,
        max_size=20,
    ),
)
async def test_rate_is_that_of_the_one_in_memory(
    redis_server: RedisServer,
    rates: list[RateLimit],
    lag_ms: int,
    steps: list[tuple[str, int, int]],
) -> None:
    """Whatever is taken, given back and altered when, at the moments that Redis tells."""
    async with _asking(redis_server) as asker:
        rate, taken = rates[0], (0, 0)  # permits, when
        twin = Twin(rate, lag_ms)
        for number, (step, wanted, gap_ms) in enumerate(steps):
            await asyncio.sleep(gap_ms / 1000)
            if step == "alter":
                rate = rates[number % len(rates)]
            elif step == "give":
                now_us = await asker.give(rate, lag_ms, *taken)
                twin.give(rate, now_us, *taken)
                taken = 0, 0
            else:
                permits, wait_us, now_us = await asker.take(rate, lag_ms, wanted)
                expected, expected_wait_us = twin.take(rate, now_us, wanted)
                assert permits == expected
                # One scales in floating point what the other does in whole nanoseconds.
                assert wait_us == pytest.approx(expected_wait_us, rel=0, abs=1)
                taken = permits, now_us


async def test_burst_passes_at_once_and_then_the_rate(redis_server: RedisServer) -> None:
    rate = RateLimit(requests=100, window_s=1, burst=20)
    async with _asking(redis_server) as asker:
        permits, _, began_us = await asker.take(rate, 0, 50)
        assert permits == 20
        admitted = [began_us] * 20
        while admitted[-1] - began_us < 200_000:
            permits, wait_us, now_us = await asker.take(rate, 0, 5)
            admitted += [now_us] * permits
            if not permits:
                assert 0 < wait_us <= 10_000
                await asyncio.sleep(wait_us / 1e6)
        # exactly what may be: every hundredth of a second has brought one
        assert len(admitted) == 20 + (admitted[-1] - began_us) // 10_000


async def test_rate_of_a_key_that_is_idle_leaves_nothing(redis_server: RedisServer) -> None:
    async with _asking(redis_server) as asker:
        await asker.take(RateLimit(requests=1000, window_s=1, burst=10), 0, 1)
        left_ms = int(redis_server.command("PTTL", PREFIX + asker.key)[1:-2])
        assert 0 < left_ms <= 1010


async def test_time_is_kept_to_the_microsecond(redis_server: RedisServer) -> None:
    """Lua by itself would write 14 of its digits."""
    async with _asking(redis_server) as asker:
        await asker.take(RateLimit(requests=1000, window_s=1, burst=10), 0, 1)
        stored = redis_server.command("GET", PREFIX + asker.key)
        assert len(stored.split(b"\r\n")[1].split(b" ")[0]) == 16


async def test_slots_of_all_hosts_are_never_more_than_the_most(redis_server: RedisServer) -> None:
    async with _asking(redis_server) as asker:
        assert await asker.slots("a", 0, 3, 5, number=1) == 3
        assert await asker.slots("b", 0, 3, 5, number=1) == 2
        assert await asker.slots("c", 0, 3, 5, number=1) == 0
        assert await asker.slots("a", 1, 0, 5, number=2) == 0  # it gave two back
        assert await asker.slots("c", 0, 3, 5, number=2) == 2


async def test_what_is_told_twice_or_late_changes_nothing(redis_server: RedisServer) -> None:
    async with _asking(redis_server) as asker:
        assert await asker.slots("a", 0, 3, 5, number=1) == 3
        assert await asker.slots("a", 0, 0, 5, number=3) == 0  # they are back
        assert await asker.slots("a", 0, 3, 5, number=2) == -1
        assert await asker.slots("a", 0, 0, 5, number=3) == -1
        assert await asker.slots("b", 0, 9, 5, number=1) == 5


async def test_slots_of_a_silent_host_are_free_after_a_while(redis_server: RedisServer) -> None:
    async with _asking(redis_server) as asker:
        assert await asker.slots("a", 0, 5, 5, number=1, kept_ms=400) == 5
        assert await asker.slots("b", 0, 1, 5, number=1) == 0
        await asyncio.sleep(0.41)
        assert await asker.slots("b", 0, 1, 5, number=2) == 1
        assert b"a" not in redis_server.command("HKEYS", PREFIX + asker.key).split(b"\r\n")


async def test_limit_that_was_lowered_grants_nothing_and_takes_nothing(
    redis_server: RedisServer,
) -> None:
    async with _asking(redis_server) as asker:
        assert await asker.slots("a", 0, 5, 5, number=1) == 5
        assert await asker.slots("a", 5, 1, 2, number=2) == 0
        assert await asker.slots("b", 0, 1, 6, number=1) == 1
