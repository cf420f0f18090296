from __future__ import annotations

import asyncio
import sys
from time import monotonic_ns

import pytest

from llm_proxy.benchmark.pacing import LoopTimer, TimerFd, new_alarm

pytestmark = pytest.mark.anyio
KINDS = [LoopTimer, *([TimerFd] if sys.platform == "linux" else [])]
LIMIT_S = 30.0


@pytest.mark.parametrize("kind", KINDS)
async def test_rings_once_and_not_before_its_time(kind: type[TimerFd] | type[LoopTimer]) -> None:
    rung: asyncio.Queue[int] = asyncio.Queue()
    alarm = kind(lambda: rung.put_nowait(monotonic_ns()))
    due = monotonic_ns() + 5_000_000
    alarm.set(due)
    async with asyncio.timeout(LIMIT_S):
        at = await rung.get()
    slack = 1_100_000 if kind is LoopTimer else 0  # loops round to milliseconds
    assert at >= due - slack
    alarm.close()
    assert rung.empty()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_time_that_has_passed_rings_at_once(
    kind: type[TimerFd] | type[LoopTimer],
) -> None:
    rung = asyncio.Event()
    alarm = kind(rung.set)
    alarm.set(monotonic_ns() - 10**9)
    async with asyncio.timeout(LIMIT_S):
        await rung.wait()
    alarm.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_setting_it_anew_forgets_the_earlier_time(
    kind: type[TimerFd] | type[LoopTimer],
) -> None:
    rung: asyncio.Queue[int] = asyncio.Queue()
    alarm = kind(lambda: rung.put_nowait(monotonic_ns()))
    alarm.set(monotonic_ns() + 60 * 10**9)
    alarm.set(monotonic_ns() + 1_000_000)
    async with asyncio.timeout(LIMIT_S):
        await rung.get()
    assert rung.empty()
    alarm.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_closed_it_never_rings(kind: type[TimerFd] | type[LoopTimer]) -> None:
    rung = asyncio.Event()
    silent, other = kind(rung.set), asyncio.Event()
    silent.set(monotonic_ns() + 1_000_000)
    silent.close()
    silent.close()
    later = kind(other.set)
    later.set(monotonic_ns() + 4_000_000)
    async with asyncio.timeout(LIMIT_S):
        await other.wait()
    later.close()
    assert not rung.is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="timer descriptors are Linux's")
async def test_linux_has_the_exact_one() -> None:
    alarm = new_alarm(lambda: None)
    assert isinstance(alarm, TimerFd)
    alarm.close()
