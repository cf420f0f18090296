from __future__ import annotations

import asyncio
import os
import signal

import pytest

from llm_proxy.chat.interrupts import Interrupts

pytestmark = pytest.mark.anyio


async def _wait(interrupts: Interrupts, begun: asyncio.Event) -> None:
    with interrupts.installed():
        begun.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
async def test_signal_ends_what_runs_and_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    interrupts, begun = Interrupts(), asyncio.Event()
    task = asyncio.create_task(_wait(interrupts, begun))
    await begun.wait()
    os.kill(os.getpid(), number)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert interrupts.received == number
    assert signal.getsignal(number) is before


async def test_ctrl_c_stops_only_what_is_to_be_stopped() -> None:
    interrupts, stopped = Interrupts(), asyncio.Event()
    with interrupts.installed(), interrupts.stopping(stopped.set):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(stopped.wait(), 10)
    assert interrupts.received is None


async def test_stop_within_a_stop_gives_way_to_it_again() -> None:
    interrupts, inner, outer = Interrupts(), asyncio.Event(), asyncio.Event()
    with interrupts.installed(), interrupts.stopping(outer.set):
        with interrupts.stopping(inner.set):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.wait_for(inner.wait(), 10)
        assert not outer.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(outer.wait(), 10)
    assert interrupts.received is None


async def test_signal_that_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts().installed():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
