from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from llm_proxy.errors import Unreachable
from llm_proxy.limits import RateLimit
from llm_proxy.redis_address import RedisAddress
from llm_proxy.server.fleet.authority import FleetAuthority
from llm_proxy.server.fleet.scripts import PREFIX
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.server.limit_authority import LimitsUnavailable
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

HOURLY = RateLimit(requests=10, window_s=3600, burst=10)


@asynccontextmanager
async def _authority(
    server: RedisServer, *, is_fail_open: bool = True, slots_kept_s: float = 60
) -> AsyncIterator[FleetAuthority]:
    authority = FleetAuthority(
        RedisAddress(host="127.0.0.1", port=server.port),
        timeout_s=10,
        fallback=HostAuthority() if is_fail_open else None,
        slots_kept_s=slots_kept_s,
        probe_every_s=0.02,
    )
    try:
        with suppress(Unreachable):
            await authority.start()
        yield authority
    finally:
        await authority.close()


async def _until(authority: FleetAuthority, status: str) -> None:
    async with asyncio.timeout(10):
        while authority.status != status:
            await asyncio.sleep(0.005)


async def _lose(server: RedisServer, authority: FleetAuthority) -> None:
    server.kill()
    async with asyncio.timeout(10):
        while authority.status == "ok":
            with suppress(LimitsUnavailable):
                await authority.take_slots("other", 1, 1, "worker")
                await authority.give_slots("other", 1, "worker")


async def test_hosts_share_rates_and_slots(redis_server: RedisServer) -> None:
    async with _authority(redis_server) as one, _authority(redis_server) as other:
        taken = await asyncio.gather(
            *(host.take_rate("token:x", HOURLY, 2) for host in (one, other) * 5)
        )
        assert sum(permits.permits for permits in taken) == 10
        refused = await one.take_rate("token:x", HOURLY, 1)
        assert refused.permits == 0
        assert 300 < refused.wait_s <= 361
        slots = await asyncio.gather(
            *(host.take_slots("token:x", 7, 1, "worker") for host in (one, other) * 5)
        )
        assert sum(slots) == 7


async def test_unused_permits_are_others(redis_server: RedisServer) -> None:
    async with _authority(redis_server) as one, _authority(redis_server) as other:
        assert (await one.take_rate("token:x", HOURLY, 10)).permits == 10
        await one.give_rate("token:x", HOURLY, 4, age_s=0.001)
        async with asyncio.timeout(30):
            while not (await other.take_rate("token:x", HOURLY, 4)).permits:
                await asyncio.sleep(0.005)


async def test_slots_of_an_ended_worker_are_soon_others(redis_server: RedisServer) -> None:
    async with _authority(redis_server) as one, _authority(redis_server) as other:
        assert await one.take_slots("total", 5, 5, "worker") == 5
        await one.forget("worker")
        async with asyncio.timeout(30):
            while await other.take_slots("total", 5, 5, "worker") == 0:
                await asyncio.sleep(0.005)


async def test_slots_of_a_server_that_stops_are_others_at_once(redis_server: RedisServer) -> None:
    async with _authority(redis_server) as other:
        async with _authority(redis_server) as one:
            assert await one.take_slots("total", 5, 5, "worker") == 5
        assert await other.take_slots("total", 5, 5, "worker") == 5


async def test_without_redis_each_host_keeps_the_limits(redis_server: RedisServer) -> None:
    async with _authority(redis_server) as one:
        assert (await one.take_rate("token:x", HOURLY, 6)).permits == 6
        await _lose(redis_server, one)
        # What was used up before stays used up.
        assert (await one.take_rate("token:x", HOURLY, 10)).permits == 4
        assert (await one.take_rate("token:x", HOURLY, 10)).permits == 0
        assert await one.take_slots("token:x", 3, 5, "worker") == 3
        assert await one.take_slots("token:x", 3, 5, "worker") == 0


async def test_closed_policy_lets_nothing_pass_without_redis(redis_server: RedisServer) -> None:
    async with _authority(redis_server, is_fail_open=False) as one:
        assert await one.take_slots("total", 5, 2, "worker") == 2
        await _lose(redis_server, one)
        with pytest.raises(LimitsUnavailable):
            await one.take_rate("token:x", HOURLY, 1)
        with pytest.raises(LimitsUnavailable):
            await one.take_slots("total", 5, 1, "worker")
        await one.give_slots("total", 2, "worker")  # ending requests are none the wiser
        await one.give_rate("token:x", HOURLY, 1, age_s=0)


async def test_slots_are_told_to_a_redis_that_comes_back_empty(redis_server: RedisServer) -> None:
    async with _authority(redis_server) as one, _authority(redis_server) as other:
        assert await one.take_slots("total", 5, 3, "worker") == 3
        await _lose(redis_server, one)
        redis_server.start()
        await _until(one, "ok")
        async with asyncio.timeout(30):
            while b"slots:total" not in redis_server.command("KEYS", f"{PREFIX}*"):
                await asyncio.sleep(0.005)
        await _until(other, "ok")
        assert await other.take_slots("total", 5, 5, "worker") == 2


async def test_slots_held_long_stay_held(redis_server: RedisServer) -> None:
    async with (
        _authority(redis_server, slots_kept_s=0.6) as one,
        _authority(redis_server, slots_kept_s=0.6) as other,
    ):
        assert await one.take_slots("total", 5, 5, "worker") == 5
        await asyncio.sleep(0.9)
        assert await other.take_slots("total", 5, 1, "worker") == 0


async def test_start_without_redis_takes_it_up_when_it_comes(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with _authority(redis_server) as one:
        assert one.status == "unavailable"
        assert (await one.take_rate("token:x", HOURLY, 20)).permits == 10
        redis_server.start()
        await _until(one, "ok")
        assert await one.take_slots("total", 5, 9, "worker") == 5


async def test_measurements_say_how_redis_is_doing(redis_server: RedisServer) -> None:
    async with _authority(redis_server) as one:
        await one.take_slots("total", 5, 3, "worker")
        found = {series.name: series.value for series in one.snapshot().gauges}
        assert found == {"redis_up": 1, "limit_slots_leased": 3}
        await _lose(redis_server, one)
        found = {series.name: series.value for series in one.snapshot().gauges}
        assert found["redis_up"] == 0
        calls = {series.labels: series.value for series in one.snapshot().counters}
        assert calls[("answered",)] >= 1
        assert calls[("failed",)] >= 3


async def test_hosts_memory_is_asked_nothing_it_need_not_know(redis_server: RedisServer) -> None:
    fallback = HostAuthority()
    authority = FleetAuthority(
        RedisAddress(host="127.0.0.1", port=redis_server.port), timeout_s=1, fallback=fallback
    )
    await authority.start()
    await authority.take_slots("total", 5, 3, "worker")
    assert fallback.slots == 0
    await authority.close()
