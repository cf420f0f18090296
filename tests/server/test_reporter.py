from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from llm_proxy.measurements import Series, Snapshot
from llm_proxy.server.channel import Measured, RefusalCount, Refused, decode_from_worker
from llm_proxy.server.reporter import Reporter

pytestmark = pytest.mark.anyio


class Bench:
    """A worker that counts, and the supervisor's end of its channel."""

    def __init__(self) -> None:
        self.requests = 0
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.reporter: Reporter

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        self.reader, self._far = await asyncio.open_unix_connection(sock=ours)
        _, self.writer = await asyncio.open_unix_connection(sock=theirs)
        self.reporter = Reporter(self._measure, self.writer, every_s=0.01)

    def _measure(self) -> Snapshot:
        return Snapshot(counters=(Series("requests", (), self.requests),))

    async def told(self) -> tuple[int, int | float]:
        """Sequence and requests of the next message."""
        async with asyncio.timeout(30):
            message = decode_from_worker(await self.reader.readline())
        assert isinstance(message, Measured)
        requests, cpu = message.snapshot.counters
        assert (cpu.name, cpu.labels) == ("process_cpu_seconds", ("worker",))
        return message.sequence, requests.value

    async def close(self) -> None:
        for writer in (self.writer, self._far):
            writer.close()
        await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.start()
    yield bench
    await bench.close()


async def test_questions_are_answered_with_their_sequence(bench: Bench) -> None:
    bench.requests = 2
    bench.reporter.answer(7)
    assert await bench.told() == (7, 2)


async def test_what_changed_is_told_unasked_and_only_then(bench: Bench) -> None:
    running = asyncio.create_task(bench.reporter.run())
    bench.requests = 1
    assert await bench.told() == (0, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await bench.reader.readline()
    bench.requests = 2
    assert await bench.told() == (0, 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_counted_at_the_very_end_is_told_too(bench: Bench) -> None:
    bench.requests = 3
    bench.reporter.finish()
    bench.writer.close()
    assert await bench.told() == (0, 3)


async def test_a_supervisor_that_does_not_read_makes_nothing_pile_up(bench: Bench) -> None:
    transport = bench.writer.transport
    while not transport.get_write_buffer_size():
        bench.writer.write(b"x" * 65536)
        await asyncio.sleep(0)
    size = transport.get_write_buffer_size()
    running = asyncio.create_task(bench.reporter.run())
    for count in range(10):
        bench.requests = count
        await asyncio.sleep(0.01)
    assert transport.get_write_buffer_size() <= size
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    transport.abort()


async def test_a_channel_that_is_closed_is_left_alone(bench: Bench) -> None:
    bench.writer.close()
    bench.reporter.finish()
    assert await bench.reader.read() == b""


async def test_what_was_refused_is_told_once(bench: Bench) -> None:
    waiting = [([(("invalid_token", "t", "p", "192.0.2.1"), 3)], {"missing_token": 2})]

    def take() -> tuple[list[tuple[tuple[str, str, str, str], int]], dict[str, int]]:
        return waiting.pop() if waiting else ([], {})

    reporter = Reporter(lambda: Snapshot(), bench.writer, take_refusals=take, every_s=0.01)
    reporting = asyncio.create_task(reporter.run())
    async with asyncio.timeout(30):
        message = decode_from_worker(await bench.reader.readline())
    assert message == Refused(
        [RefusalCount("invalid_token", "t", "p", "192.0.2.1", 3)], {"missing_token": 2}
    )
    reporting.cancel()
    await asyncio.gather(reporting, return_exceptions=True)
    reporter.finish()
    async with asyncio.timeout(30):
        assert isinstance(decode_from_worker(await bench.reader.readline()), Measured)
