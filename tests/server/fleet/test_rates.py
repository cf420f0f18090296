from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from llm_proxy.limits import RateLimit
from llm_proxy.redis_address import RedisAddress
from llm_proxy.server.fleet.connections import RedisUnavailable
from llm_proxy.server.fleet.link import RedisLink
from llm_proxy.server.fleet.rates import HELD_S, FleetRates, lag_s
from llm_proxy.server.fleet.scripts import GIVE_RATE, Script
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

MINUTELY = RateLimit(requests=60, window_s=60, burst=60)


class Answers:
    """A link that answers what it is told to, after a time on a clock of its own."""

    def __init__(self, answer: Any, *, after_s: float = 0.0) -> None:
        self.now = 1_000_000_000_000
        self.calls: list[tuple[Script, str, tuple[str | int | float, ...]]] = []
        self._answer = answer
        self._after_s = after_s

    def clock(self) -> int:
        return self.now

    async def call(self, script: Script, key: str, *arguments: str | int | float) -> Any:
        self.calls.append((script, key, arguments))
        self.now += round(self._after_s * 1e9)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def test_whatever_hosts_do_with_their_permits_the_limit_holds(
    redis_server: RedisServer,
) -> None:
    """Two of them ask at random, and use each permit somewhere between its coming and its end."""
    rate = RateLimit(requests=200, window_s=1, burst=20)
    used: list[int] = []

    async def host(link: RedisLink, seed: int) -> None:
        rates, chance = FleetRates(link), random.Random(seed)
        while time.monotonic() < ends_at:
            answer = await rates.take("total", rate, chance.randint(1, 8))
            now = time.monotonic_ns()
            used.extend(
                chance.choice([now, answer.valid_until, chance.randint(now, answer.valid_until)])
                for _ in range(answer.permits if answer.valid_until >= now else 0)
            )
            await asyncio.sleep(chance.choice([0, 0, 0.002, 0.02]))

    address = RedisAddress(host="127.0.0.1", port=redis_server.port)
    links = [RedisLink(address, timeout_s=10) for _ in range(2)]
    await asyncio.gather(*(link.start() for link in links))
    ends_at = time.monotonic() + 0.5
    await asyncio.gather(*(host(link, seed) for seed, link in enumerate(links)))
    await asyncio.gather(*(link.close() for link in links))
    used.sort()
    assert len(used) > rate.burst
    for first in range(len(used)):
        for last in range(first, len(used)):
            window_s = (used[last] - used[first]) / 1e9
            assert last - first + 1 <= rate.burst + window_s * 200 + 1e-6


async def test_rate_is_kept_up_after_the_burst(redis_server: RedisServer) -> None:
    rate = RateLimit(requests=200, window_s=1, burst=20)
    link = RedisLink(RedisAddress(host="127.0.0.1", port=redis_server.port), timeout_s=10)
    await link.start()
    rates = FleetRates(link)
    began = asked_at = time.monotonic()
    admitted, missed_s = 0, 0.0
    while (passed_s := time.monotonic() - began) < 0.5:
        admitted += (await rates.take("total", rate, 20)).permits
        await asyncio.sleep(0.004)
        # Of a pause that is longer than it takes to fill the burst, the rest is lost.
        missed_s += max(0.0, time.monotonic() - asked_at - 0.05)
        asked_at = time.monotonic()
    assert admitted > 0.9 * (rate.burst + (passed_s - lag_s(rate) - missed_s) * 200)
    await link.close()


async def test_permit_that_was_long_on_its_way_is_lost() -> None:
    link = Answers([5, 0, 1], after_s=0.4)
    answer = await FleetRates(link, clock=link.clock).take("total", MINUTELY, 5)
    assert answer.permits == 0
    assert 0 < answer.wait_s <= 1


async def test_permit_is_good_for_a_tenth_of_a_second_at_most() -> None:
    link = Answers([5, 0, 1], after_s=0.01)
    answer = await FleetRates(link, clock=link.clock).take("total", MINUTELY, 5)
    assert answer.permits == 5
    assert answer.valid_until == link.now + round(HELD_S * 1e9)


async def test_slow_answers_shorten_what_is_left_of_it() -> None:
    link = Answers([5, 0, 1], after_s=0.3)
    answer = await FleetRates(link, clock=link.clock).take("total", MINUTELY, 5)
    assert answer.permits == 5
    assert answer.valid_until == link.now + 50_000_000


@pytest.mark.parametrize(
    ("rate", "expected_s"),
    [
        (MINUTELY, 0.35),
        (RateLimit(requests=100, window_s=1, burst=11), 0.05),
        (RateLimit(requests=100, window_s=1, burst=1), 0.02),
        (RateLimit(requests=1, window_s=1, burst=1), 0.05),
        (RateLimit(requests=1, window_s=86400, burst=1), 0.35),
    ],
)
async def test_lag_follows_from_the_rate_alone(rate: RateLimit, expected_s: float) -> None:
    assert lag_s(rate) == pytest.approx(expected_s)


@pytest.mark.parametrize("answer", [None, b"OK", [1, 2], ["1", "0", "0"]])
async def test_odd_answer_counts_as_none(answer: object) -> None:
    link = Answers(answer)
    with pytest.raises(RedisUnavailable):
        await FleetRates(link).take("total", MINUTELY, 1)


async def test_unused_permits_are_given_back_with_the_time_of_redis() -> None:
    link = Answers([5, 0, 77_000_000])
    rates = FleetRates(link, clock=link.clock)
    giving = asyncio.create_task(rates.run())
    await rates.take("total", MINUTELY, 5)
    link.now += 30_000_000
    rates.give("total", MINUTELY, 4, age_s=0.02)
    while len(link.calls) < 2:
        await asyncio.sleep(0)
    giving.cancel()
    await asyncio.gather(giving, return_exceptions=True)
    script, key, arguments = link.calls[1]
    assert (script, key) == (GIVE_RATE, "rate:total")
    assert arguments[-2:] == (4, 77_010_000)  # taken 10 ms after the answer, at the earliest


async def test_giving_back_survives_a_redis_that_is_away() -> None:
    link = Answers(RedisUnavailable("away"))
    rates = FleetRates(link, clock=link.clock)
    giving = asyncio.create_task(rates.run())
    for _ in range(3):
        rates.give("total", MINUTELY, 4, age_s=0.02)
        await asyncio.sleep(0)
    while len(link.calls) < 3:
        await asyncio.sleep(0)
    assert not giving.done()
    giving.cancel()
    await asyncio.gather(giving, return_exceptions=True)


async def test_what_waits_to_be_given_back_is_bounded() -> None:
    link = Answers([1, 0, 1])
    rates = FleetRates(link, clock=link.clock)
    for _ in range(11_000):
        rates.give("total", MINUTELY, 1, age_s=0)
    giving = asyncio.create_task(rates.run())
    while len(link.calls) < 10_000:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(link.calls) == 10_000
    giving.cancel()
    await asyncio.gather(giving, return_exceptions=True)
