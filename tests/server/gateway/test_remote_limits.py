from __future__ import annotations

import asyncio

import pytest

from llm_proxy.limits import RateLimit
from llm_proxy.server.channel import AskLimits, LimitsAnswer, LimitsWanted, RateWanted
from llm_proxy.server.gateway.remote_limits import RemoteLimits
from tests.server.gateway.limits import Clock

pytestmark = pytest.mark.anyio
RATE = RateLimit(60, 60, 60)
WANTED = LimitsWanted((RateWanted("token:a", RATE, 1),), ())


async def test_one_turn_is_one_message() -> None:
    sent: list[AskLimits] = []
    remote = RemoteLimits(sent.append, workers=2)
    remote.ask(WANTED)
    remote.ask(WANTED)
    remote.give_slots("total", 1)
    remote.give_slots("total", 2)
    assert sent == []
    await asyncio.sleep(0)
    assert sent == [AskLimits(1, (WANTED, WANTED), given_slots=(("total", 3),))]
    assert remote.is_busy
    assert remote.asked == 2


async def test_gifts_do_not_wait_for_an_answer() -> None:
    sent: list[AskLimits] = []
    remote = RemoteLimits(sent.append, workers=2)
    remote.ask(WANTED)
    await asyncio.sleep(0)
    remote.give_slots("total", 1)
    await asyncio.sleep(0)
    assert sent[1] == AskLimits(0, given_slots=(("total", 1),))
    remote.answered(LimitsAnswer(1, ()))
    assert not remote.is_busy


async def test_permits_that_are_worth_nothing_any_more_are_not_sent() -> None:
    sent: list[AskLimits] = []
    remote = RemoteLimits(sent.append, workers=2)
    remote.give_rate("token:a", RATE, 1, 2 * 10**9)
    await asyncio.sleep(0)
    assert sent == []
    remote.give_rate("token:a", RATE, 3, 2 * 10**9)
    await asyncio.sleep(0)
    assert sent == [AskLimits(0, given_rates=(("token:a", RATE, 3, 2.0),))]


async def test_silence_of_two_seconds_is_a_loss_until_the_answer_comes() -> None:
    clock = Clock()
    losses: list[bool] = []
    remote = RemoteLimits(lambda message: None, workers=2, clock=clock)
    remote.on_loss = lambda: losses.append(True)
    remote.ask(WANTED)
    await asyncio.sleep(0)
    clock.advance(2)
    remote.check()
    assert not remote.is_lost
    clock.advance(0.1)
    remote.check()
    remote.check()
    assert (remote.is_lost, losses) == (True, [True])
    remote.answered(LimitsAnswer(1, ()))
    assert not remote.is_lost


async def test_after_the_end_nothing_is_sent_or_hoped_for() -> None:
    sent: list[AskLimits] = []
    remote = RemoteLimits(sent.append, workers=2)
    remote.end()
    remote.give_slots("total", 1)
    await asyncio.sleep(0)
    remote.answered(LimitsAnswer(0, ()))
    assert (sent, remote.is_lost) == ([], True)
