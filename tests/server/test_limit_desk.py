from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llm_proxy.limits import RateLimit
from llm_proxy.server.channel import (
    AskLimits,
    GrantedLimits,
    LimitsAnswer,
    LimitsWanted,
    RateWanted,
    SlotsWanted,
)
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.server.limit_authority import Authority, LimitsUnavailable, RatePermits
from llm_proxy.server.limit_desk import LimitDesk

pytestmark = pytest.mark.anyio
TEN = RateLimit(10, 60, 10)


class Answers:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[LimitsAnswer] = asyncio.Queue()

    async def next(self) -> tuple[GrantedLimits, ...]:
        async with asyncio.timeout(30):
            return (await self.queue.get()).granted


@asynccontextmanager
async def desk_of(authority: Authority) -> AsyncIterator[tuple[LimitDesk, Answers]]:
    answers = Answers()
    desk = LimitDesk(authority, holder="worker", answer=answers.queue.put_nowait)
    yield desk, answers
    await desk.close()


def wants(*, rate: int = 0, slots: int = 0, most: int = 5) -> LimitsWanted:
    return LimitsWanted(
        rates=(RateWanted("token:a", TEN, rate),) if rate else (),
        slots=(SlotsWanted("total", most, slots),) if slots else (),
    )


class Broken(HostAuthority):
    """Raises what it is told to, when slots are asked for or given."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure: Exception | None = failure

    async def take_slots(self, key: str, most: int, wanted: int, holder: str) -> int:
        if self.failure is not None:
            raise self.failure
        return await super().take_slots(key, most, wanted, holder)

    async def give_slots(self, key: str, count: int, holder: str) -> None:
        if self.failure is not None:
            raise self.failure
        await super().give_slots(key, count, holder)


async def test_all_that_is_wanted_is_granted_in_order() -> None:
    async with desk_of(HostAuthority()) as (desk, answers):
        desk.put(AskLimits(7, wanted=(wants(rate=2), wants(slots=3), wants(rate=1, slots=1))))
        answer = await answers.queue.get()
    assert answer.sequence == 7
    rate_only, slots_only, both = answer.granted
    assert [one.permits for one in rate_only.rates] == [2]
    assert [one.count for one in slots_only.slots] == [3]
    assert (both.rates[0].permits, both.slots[0].count) == (1, 1)


async def test_refused_by_one_takes_nothing_of_the_other() -> None:
    authority = HostAuthority()
    async with desk_of(authority) as (desk, answers):
        await authority.take_slots("total", 5, 5, "other")
        desk.put(AskLimits(1, wanted=(wants(rate=4, slots=1),)))
        (refused,) = await answers.next()
        assert (refused.rates[0].permits, refused.rates[0].wait_s) == (0, 0.0)
        assert refused.slots[0].is_full
        assert (await authority.take_rate("token:a", TEN, 20)).permits == 10
        await authority.give_slots("total", 5, "other")
        desk.put(AskLimits(2, wanted=(wants(rate=1, slots=2),)))
        (refused,) = await answers.next()
        assert refused.rates[0].wait_s > 1
        assert not refused.slots[0].is_full
        assert authority.slots == 0


async def test_what_is_given_back_is_there_for_the_question_with_it() -> None:
    authority = HostAuthority()
    async with desk_of(authority) as (desk, answers):
        desk.put(AskLimits(1, wanted=(wants(rate=10, slots=5),)))
        await answers.next()
        given = (("token:a", TEN, 10, 0.0),)
        again = (wants(rate=10, slots=5),)
        desk.put(AskLimits(2, again, given_rates=given, given_slots=(("total", 5),)))
        (granted,) = await answers.next()
        assert (granted.rates[0].permits, granted.slots[0].count) == (10, 5)


async def test_end_of_the_worker_frees_its_slots() -> None:
    authority = HostAuthority()
    async with desk_of(authority) as (desk, answers):
        desk.put(AskLimits(1, wanted=(wants(slots=5),)))
        await answers.next()
        assert authority.slots == 5
    assert authority.slots == 0


@pytest.mark.parametrize("failure", [LimitsUnavailable("away"), RuntimeError("a defect")])
async def test_failing_authority_is_told_as_such_and_asked_again(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Broken(failure)
    async with desk_of(authority) as (desk, answers):
        desk.put(AskLimits(1, (wants(rate=10, slots=1),), given_slots=(("total", 1),)))
        (refused,) = await answers.next()
        assert refused.is_unavailable
        desk.put(AskLimits(2, wanted=(wants(slots=1),)))
        assert (await answers.next())[0].is_unavailable
        authority.failure = None
        desk.put(AskLimits(3, wanted=(wants(rate=10, slots=1),)))
        (granted,) = await answers.next()
        assert granted.rates[0].permits == 10  # those of the first were given back
    assert bool(caplog.records) == isinstance(failure, RuntimeError)


async def test_nothing_wanted_is_not_answered() -> None:
    async with desk_of(HostAuthority()) as (desk, answers):
        desk.put(AskLimits(0, given_slots=(("total", 1),)))
        desk.put(AskLimits(1, wanted=(wants(rate=1),)))
        assert len(await answers.next()) == 1
        assert answers.queue.empty()


async def test_permits_are_valid_for_a_tenth_of_a_second() -> None:
    permits: RatePermits = await HostAuthority().take_rate("a", TEN, 1)
    assert permits.valid_until > 0
