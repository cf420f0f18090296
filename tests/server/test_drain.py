from __future__ import annotations

import asyncio
import logging
from collections.abc import Set

import pytest

from llm_proxy.server.drain import ACCEPTED_LATE_S, Draining

pytestmark = pytest.mark.anyio


class FakeConnection:
    """Leaves when drained if idle, when cut unless idle or reading nothing, and when aborted."""

    def __init__(self, all: set[FakeConnection], *, is_idle: bool, reads: bool = True) -> None:
        self.ended = ""
        self.graces: list[float] = []
        self._is_idle = is_idle
        self._reads = reads
        self._all = all
        all.add(self)

    def drain(self, idle_grace_s: float) -> None:
        self.graces.append(idle_grace_s)
        if self._is_idle:
            self.end("drained")

    def cut(self) -> None:
        if self._reads:
            self.end("cut")

    def abort(self) -> None:
        self.end("aborted")

    def end(self, how: str) -> None:
        self.ended = how
        self._all.discard(self)


class Bench:
    def __init__(self) -> None:
        self.connections: set[FakeConnection] = set()
        as_protocol: Set[FakeConnection] = self.connections
        self.drain = Draining(as_protocol)

    def add(self, *, is_idle: bool, reads: bool = True) -> FakeConnection:
        return FakeConnection(self.connections, is_idle=is_idle, reads=reads)

    async def run(self) -> float:
        """The seconds it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(10):
            await self.drain.run()
        return loop.time() - began


async def test_nothing_open_is_over_once_late_connections_would_have_come() -> None:
    bench = Bench()
    bench.drain.ask(30)
    assert 0.9 * ACCEPTED_LATE_S <= await bench.run() < 10  # timers round


async def test_idle_ones_close_and_the_rest_may_finish() -> None:
    bench = Bench()
    idle, running = bench.add(is_idle=True), bench.add(is_idle=False)
    bench.drain.ask(30, 5.0)
    task = asyncio.create_task(bench.run())
    while not idle.ended:
        await asyncio.sleep(0.01)
    assert (idle.graces, running.graces) == ([5.0], [5.0])
    assert running.ended == ""
    running.end("finished")
    assert await task < 5


async def test_at_the_deadline_what_runs_is_cut_and_who_reads_nothing_aborted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    running, stuck = bench.add(is_idle=False), bench.add(is_idle=False, reads=False)
    bench.drain.ask(0.1)
    await bench.run()
    assert (running.ended, stuck.ended) == ("cut", "aborted")
    assert "connections cut after the drain: 2" in caplog.messages


async def test_last_time_limit_counts() -> None:
    bench = Bench()
    running = bench.add(is_idle=False)
    bench.drain.ask(600, 60)
    task = asyncio.create_task(bench.run())
    while not running.graces:
        await asyncio.sleep(0.01)
    bench.drain.ask(0.2, 0.1)
    assert await task < 2
    assert running.graces == [60, 0.1]
    assert running.ended == "cut"


async def test_without_a_supervisor_a_long_limit_is_shortened_and_a_short_one_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    bench = Bench()
    bench.add(is_idle=False)
    bench.drain.ask(0.3)
    bench.drain.hurry()
    assert 0.3 <= await bench.run() < 2


async def test_signal_to_a_worker_that_drains_changes_nothing() -> None:
    bench = Bench()
    bench.add(is_idle=False)
    bench.drain.ask(0.1)
    bench.drain.ask_unless_asked()
    assert await bench.run() < 2


async def test_signal_to_a_worker_begins_a_drain() -> None:
    drain = Bench().drain
    assert not drain.is_asked.is_set()
    drain.ask_unless_asked()
    assert drain.is_asked.is_set()
