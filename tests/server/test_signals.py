from __future__ import annotations

import asyncio
import os
import signal

import pytest

from llm_proxy.server.signals import handling_signals

pytestmark = pytest.mark.anyio


async def test_handlers_hold_within_the_block_only() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    arrived = asyncio.Event()
    with handling_signals({signal.SIGUSR2: arrived.set}):
        os.kill(os.getpid(), signal.SIGUSR2)
        async with asyncio.timeout(30):
            await arrived.wait()
    assert signal.getsignal(signal.SIGUSR2) == before
