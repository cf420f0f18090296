from __future__ import annotations

import pytest

from llm_proxy.gcra import SECOND
from llm_proxy.limits import RateLimit
from llm_proxy.server.channel import LimitsState
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.server.limit_authority import Authority, RatePermits

pytestmark = pytest.mark.anyio
TEN = RateLimit(10, 60, 10)


class Clock:
    now = 10**15

    def __call__(self) -> int:
        return self.now


async def test_workers_share_the_burst_of_a_key() -> None:
    clock = Clock()
    host = HostAuthority(clock=clock)
    assert (await host.take_rate("token:a", TEN, 7)).permits == 7
    second = await host.take_rate("token:a", TEN, 7)
    assert second == RatePermits(3, valid_until=clock.now + SECOND // 10)
    third = await host.take_rate("token:a", TEN, 7)
    assert third.permits == 0
    assert third.wait_s == pytest.approx(6.1)
    assert (await host.take_rate("token:b", TEN, 1)).permits == 1


async def test_unused_permits_can_be_taken_by_another() -> None:
    host = HostAuthority(clock=Clock())
    await host.take_rate("token:a", TEN, 10)
    await host.give_rate("token:a", TEN, 2, 0.0)
    await host.give_rate("token:unknown", TEN, 2, 0.0)
    assert (await host.take_rate("token:a", TEN, 10)).permits == 2


async def test_altered_rate_keeps_what_is_used_up() -> None:
    host = HostAuthority(clock=Clock())
    await host.take_rate("token:a", TEN, 10)
    assert (await host.take_rate("token:a", RateLimit(20, 60, 20), 1)).permits == 0
    await host.give_rate("token:a", TEN, 10, 0.0)  # of a rate that isn't the present one
    assert (await host.take_rate("token:a", TEN, 1)).permits == 0


async def test_keys_in_use_are_bounded_and_further_ones_wait() -> None:
    clock = Clock()
    host = HostAuthority(clock=clock, most_rates=2)
    for key in ("a", "b"):
        await host.take_rate(key, TEN, 1)
    assert await host.take_rate("c", TEN, 1) == RatePermits(0, wait_s=1.0)
    clock.now += 61 * SECOND
    assert (await host.take_rate("c", TEN, 1)).permits == 1


async def test_slots_never_exceed_the_most() -> None:
    host = HostAuthority()
    assert await host.take_slots("token:a", 5, 3, "one") == 3
    assert await host.take_slots("token:a", 5, 3, "two") == 2
    assert await host.take_slots("token:a", 5, 1, "two") == 0
    await host.give_slots("token:a", 1, "one")
    assert await host.take_slots("token:a", 5, 3, "two") == 1
    assert host.slots == 5
    assert await host.take_slots("token:a", 2, 1, "two") == 0  # fewer are allowed now


async def test_slots_of_a_worker_that_ended_are_free() -> None:
    host = HostAuthority()
    await host.take_slots("token:a", 2, 2, "one")
    await host.take_slots("total", 9, 2, "one")
    await host.take_slots("total", 9, 2, "two")
    await host.forget("one")
    await host.forget("never seen")
    assert await host.take_slots("token:a", 2, 2, "two") == 2
    await host.give_slots("total", 9, "two")  # no more than it holds
    await host.give_slots("token:a", 2, "two")
    assert host.slots == 0
    await host.close()


async def test_what_a_worker_counted_by_itself_is_counted_on() -> None:
    clock = Clock()
    host = HostAuthority(clock=clock, most_rates=1)
    state = LimitsState((("token:a", TEN, 30 * SECOND), ("b", TEN, 1)), (("total", 2),))
    host.adopt(state, "one")
    assert host.slots == 2
    assert (await host.take_rate("token:a", TEN, 10)).permits == 4  # half a minute but the lag
    await host.forget("one")
    assert host.slots == 0


async def test_a_fleet_adopts_nothing() -> None:
    """Its hosts never count by themselves."""
    assert not hasattr(Authority, "adopt")
