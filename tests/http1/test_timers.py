from __future__ import annotations

import asyncio
import time

import pytest

from llm_proxy.http1.timers import TICK_S, Timers

pytestmark = pytest.mark.anyio


class Checked:
    def __init__(self, timers: Timers, checks: int) -> None:
        self._timers = timers
        self._left = checks
        self.done = asyncio.Event()
        self.times: list[float] = []

    def check(self, now: float) -> None:
        self.times.append(now)
        self._left -= 1
        if not self._left:
            self._timers.forget(self)
            self.done.set()


async def test_what_is_watched_is_checked_every_tick_until_it_is_forgotten() -> None:
    timers = Timers(asyncio.get_running_loop())
    once, twice = Checked(timers, 1), Checked(timers, 2)
    timers.watch(once)
    timers.watch(twice)
    async with asyncio.timeout(30):
        await twice.done.wait()
    assert len(once.times) == 1
    assert twice.times[1] - twice.times[0] >= TICK_S * 0.9
    assert timers.now == twice.times[1]


async def test_the_clock_is_right_again_after_a_time_without_ticks() -> None:
    loop = asyncio.get_running_loop()
    timers = Timers(loop)
    timers.now -= 1000
    timers.watch(Checked(timers, 1))
    assert abs(timers.now - loop.time()) < 1
    timers.close()


async def test_a_closed_clock_checks_nothing() -> None:
    loop = asyncio.get_running_loop()
    timers, other = Timers(loop), Timers(loop)
    never, sentinel = Checked(timers, 1), Checked(other, 2)
    timers.watch(never)
    timers.close()
    other.watch(sentinel)
    async with asyncio.timeout(30):
        await sentinel.done.wait()
    assert never.times == []
    timers.close()


async def test_a_check_that_fails_ends_no_other_timeout() -> None:
    loop = asyncio.get_running_loop()
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    timers = Timers(loop)

    class Failing(Checked):
        def check(self, now: float) -> None:
            self._timers.forget(self)
            raise RuntimeError("a bug")

    other = Checked(timers, 3)
    timers.watch(Failing(timers, 1))
    timers.watch(other)
    async with asyncio.timeout(30):
        await other.done.wait()
    assert [type(failure) for failure in failures] == [RuntimeError]


async def test_a_tick_that_comes_late_is_told() -> None:
    lags: list[tuple[float, float]] = []
    loop = asyncio.get_running_loop()
    timers = Timers(loop, on_lag=lambda lag, now: lags.append((lag, now)))
    checked = Checked(timers, 2)
    timers.watch(checked)
    loop.call_later(TICK_S - 0.05, time.sleep, 0.6)  # and the next is hardly as late
    async with asyncio.timeout(30):
        await checked.done.wait()
    (first, now), (second, _) = lags
    assert first >= 0.5
    assert 0 <= second < first
    assert now == checked.times[0]
    timers.close()
