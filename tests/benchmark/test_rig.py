from __future__ import annotations

import asyncio
import os
from collections import Counter
from signal import SIGKILL, SIGSTOP

import msgspec
import pytest

from llm_proxy.benchmark.mock_upstream import MockServer
from llm_proxy.benchmark.plan import Closed
from llm_proxy.benchmark.rig import Rig
from llm_proxy.benchmark.samples import OK, Frame
from llm_proxy.errors import LLMProxyError
from tests.benchmark.generating import plan, target

pytestmark = pytest.mark.anyio


async def test_two_processes_share_two_runs(mock: MockServer) -> None:
    frames: list[Frame] = []
    wanted = plan(Closed(concurrency=4, requests=40), target(mock.address))
    async with Rig(2) as rig:
        for _ in range(2):
            figures = await rig.run(wanted, frames.append)
            assert [one.process for one in figures] == [0, 1]
        assert sum(one.connects for one in figures) == 0
    per_process: Counter[int] = Counter()
    for frame in frames:
        per_process[frame.process] += len(frame.samples)
        assert set(frame.samples.outcome) <= {OK}
    assert per_process == {0: 40, 1: 40}
    assert len(mock.requests) == 80


async def test_stopping_ends_the_run(mock: MockServer) -> None:
    started = asyncio.Event()
    wanted = plan(Closed(concurrency=1, duration_s=60), target(mock.address))
    async with Rig() as rig:
        running = asyncio.create_task(rig.run(wanted, lambda frame: started.set()))
        async with asyncio.timeout(20):
            await started.wait()
            rig.stop()
            figures = await running
    assert figures[0].wall_s < 30


async def test_what_a_generator_cannot_do_is_told() -> None:
    tls = msgspec.structs.replace(
        target("127.0.0.1:1"), base_url="https://127.0.0.1:1", ca_file="/no/such.pem"
    )
    async with Rig() as rig:
        with pytest.raises(LLMProxyError, match="ca_file"):
            await rig.run(plan(Closed(concurrency=1, requests=1), tls), lambda frame: None)


async def test_fewer_connections_than_processes_are_refused(mock: MockServer) -> None:
    async with Rig(2) as rig:
        with pytest.raises(LLMProxyError, match="2 processes"):
            wanted = plan(Closed(concurrency=1, requests=1), target(mock.address))
            await rig.run(wanted, lambda frame: None)


@pytest.mark.parametrize(("signal_", "why"), [(SIGKILL, "exit code -9"), (SIGSTOP, "nothing for")])
async def test_a_generator_that_is_lost_ends_the_run_but_not_the_figures(
    mock: MockServer, signal_: int, why: str
) -> None:
    begun: set[int] = set()
    both = asyncio.Event()

    def note(frame: Frame) -> None:
        begun.add(frame.process)
        if len(begun) == 2:
            both.set()

    wanted = plan(Closed(concurrency=2, duration_s=60), target(mock.address))
    async with Rig(2, silent_s=1.0) as rig:
        running = asyncio.create_task(rig.run(wanted, note))
        async with asyncio.timeout(20):
            await both.wait()
            os.kill(rig.pids[1], signal_)
            kept, lost = await running
    assert kept.lost == "" and kept.wall_s > 0
    assert why in lost.lost
