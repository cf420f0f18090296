"""Rates of a fleet: permits are issued by Redis, by its clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from llm_proxy.limits import RateLimit
from llm_proxy.server.fleet.connections import RedisUnavailable
from llm_proxy.server.fleet.link import Link
from llm_proxy.server.fleet.scripts import GIVE_RATE, TAKE_RATE
from llm_proxy.server.limit_authority import RatePermits

HELD_S: Final = 0.1  # the longest that a worker may keep a permit
LEAST_LAG_S: Final = 0.02  # the way of a permit to its worker takes less, most of the time
MOST_LAG_S: Final = 0.35  # so much too early a limit may refuse
_MOST_GIVEN: Final = 10_000  # on their way back; what is more is lost, not held
_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class _Given:
    key: str
    arguments: Sequence[str | int]


class FleetRates:
    def __init__(self, link: Link, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._link = link
        self._clock = clock
        self._given: asyncio.Queue[_Given] = asyncio.Queue(_MOST_GIVEN)
        self._offset_us = 0  # of Redis's clock from ours, at the least

    async def take(self, key: str, rate: RateLimit, wanted: int) -> RatePermits:
        """Raises RedisUnavailable."""
        asked_at = self._clock()
        answer = await self._link.call(TAKE_RATE, f"rate:{key}", *_terms(rate), wanted)
        answered_at = self._clock()
        permits, wait_us, now_us = _numbers(answer)
        self._offset_us = now_us - answered_at // 1000
        # Redis reckons that what it issues may be used for the lag, and issued it after it was
        # asked. What took longer on its way is lost.
        valid_until = min(asked_at + round(lag_s(rate) * 1e9), answered_at + round(HELD_S * 1e9))
        if permits and valid_until <= answered_at:
            return RatePermits(permits=0, wait_s=rate.interval_s)
        return RatePermits(permits=permits, wait_s=wait_us / 1e6, valid_until=valid_until)

    def give(self, key: str, rate: RateLimit, permits: int, age_s: float) -> None:
        """Permits that were never used; `run` tells Redis."""
        issued_at = self._clock() // 1000 - round(age_s * 1e6) + self._offset_us
        if not self._given.full():
            self._given.put_nowait(_Given(key, (*_terms(rate), permits, max(0, issued_at))))

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            some = [await self._given.get()]
            some += [self._given.get_nowait() for _ in range(min(_AT_ONCE, self._given.qsize()))]
            await asyncio.gather(*map(self._give, some))

    async def _give(self, given: _Given) -> None:
        # What can't be given back was used, in effect: too few are admitted, never too many.
        with suppress(RedisUnavailable):
            await self._link.call(GIVE_RATE, f"rate:{given.key}", *given.arguments)


def lag_s(rate: RateLimit) -> float:
    """For how long after its issue a permit may be used: the same on all hosts, so it follows from
    the rate alone. The longer it is, the less of the burst is left once it was used up."""
    burst_s = (rate.burst - 1) * rate.interval_s
    return min(MOST_LAG_S, max(LEAST_LAG_S, burst_s / 2, rate.interval_s / 20))


def _terms(rate: RateLimit) -> tuple[str, int, int]:
    """As the scripts take them."""
    interval_us = rate.window_s * 1_000_000 / rate.requests
    return repr(interval_us), max(1, rate.burst), round(lag_s(rate) * 1e6)


def _numbers(answer: Any) -> tuple[int, int, int]:
    match answer:
        case [int(permits), int(wait_us), int(now_us)]:
            return permits, wait_us, now_us
    raise RedisUnavailable("an answer of another form than expected")
