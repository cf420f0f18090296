"""The authority over limits of scope fleet: Redis, and what is done while it is away."""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import uuid4

from llm_proxy.limits import RateLimit
from llm_proxy.measurements import Series, Snapshot
from llm_proxy.redis_address import RedisAddress
from llm_proxy.server.fleet.connections import RedisUnavailable
from llm_proxy.server.fleet.link import PROBE_EVERY_S, RedisLink
from llm_proxy.server.fleet.rates import FleetRates
from llm_proxy.server.fleet.slots import KEPT_S, FleetSlots
from llm_proxy.server.limit_authority import Authority, LimitsUnavailable, RatePermits

_LAST_WORDS_S: Final = 1.0


class FleetAuthority:
    def __init__(
        self,
        address: RedisAddress,
        *,
        timeout_s: float,
        fallback: Authority | None,
        slots_kept_s: float = KEPT_S,
        probe_every_s: float = PROBE_EVERY_S,
    ) -> None:
        """`fallback` keeps the rates of this host while Redis is away; None: nobody does, and
        slots aren't given either."""
        self._fallback = fallback
        self._link = RedisLink(
            address,
            timeout_s=timeout_s,
            probe_every_s=probe_every_s,
            on_loss=self._tell_again,  # the slots need the link, so they are made later
        )
        self._rates = FleetRates(self._link)
        self._slots = FleetSlots(
            self._link,
            host=uuid4().hex,
            lasts_without_redis=self.lasts_without_redis,
            kept_s=slots_kept_s,
            tell_every_s=slots_kept_s / 3,
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def lasts_without_redis(self) -> bool:
        return self._fallback is not None

    @property
    def status(self) -> str:
        return "ok" if self._link.is_up else "unavailable"

    async def start(self) -> None:
        """Raises ConfigError when Redis refuses the settings. Raises Unreachable when it can't be
        used for now; it works all the same then, and `close` ends it."""
        self._tasks = [
            asyncio.create_task(self._slots.run(), name="slots for Redis"),
            asyncio.create_task(self._rates.run(), name="permits back to Redis"),
        ]
        await self._link.start()

    def _tell_again(self) -> None:
        self._slots.tell_again()

    async def take_rate(self, key: str, rate: RateLimit, wanted: int) -> RatePermits:
        try:
            permits = await self._rates.take(key, rate, wanted)
        except RedisUnavailable as exc:
            if self._fallback is None:
                raise _unavailable(exc) from exc
            return await self._fallback.take_rate(key, rate, wanted)
        if permits.permits and self._fallback is not None:
            # So that, should Redis go away now, what is used up of the burst stays used up.
            await self._fallback.take_rate(key, rate, permits.permits)
        return permits

    async def give_rate(self, key: str, rate: RateLimit, permits: int, age_s: float) -> None:
        """Doesn't wait for Redis."""
        if self._fallback is not None:
            await self._fallback.give_rate(key, rate, permits, age_s)
        self._rates.give(key, rate, permits, age_s)

    async def take_slots(self, key: str, most: int, wanted: int, holder: str) -> int:
        try:
            return await self._slots.take(key, most, wanted, holder)
        except RedisUnavailable as exc:
            raise _unavailable(exc) from exc

    async def give_slots(self, key: str, count: int, holder: str) -> None:
        self._slots.give(key, count, holder)

    async def forget(self, holder: str) -> None:
        self._slots.forget(holder)
        if self._fallback is not None:
            await self._fallback.forget(holder)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._slots.give_all(within_s=_LAST_WORDS_S)
        await self._link.close()
        if self._fallback is not None:
            await self._fallback.close()

    def snapshot(self) -> Snapshot:
        counts = self._link.counts
        calls = {"answered": counts.answered, "failed": counts.failed, "skipped": counts.skipped}
        return Snapshot(
            counters=tuple(Series("redis_calls", (name,), n) for name, n in calls.items()),
            gauges=(
                Series("redis_up", (), int(self._link.is_up)),
                Series("limit_slots_leased", (), self._slots.held),
            ),
        )


def _unavailable(error: RedisUnavailable) -> LimitsUnavailable:
    return LimitsUnavailable(f"Redis can't be used ({error})")
