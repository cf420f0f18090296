from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from llm_proxy.errors import ConfigError, Unreachable
from llm_proxy.redis_address import RedisAddress
from llm_proxy.server.fleet.connections import RedisUnavailable
from llm_proxy.server.fleet.link import FAILURES, LANES, RedisLink
from llm_proxy.server.fleet.scripts import PREFIX, TAKE_RATE
from tests.redis_server import RedisServer, StartRedis

pytestmark = pytest.mark.anyio

TIMEOUT_S = 0.1  # where Redis hangs: it is waited for


class Losses:
    """Counts them, and waits for what one of them brings."""

    def __init__(self) -> None:
        self.number = 0
        self._changed = asyncio.Event()

    def __call__(self) -> None:
        self.number += 1
        self._changed.set()

    async def until_up(self, link: RedisLink) -> None:
        async with asyncio.timeout(10):
            while not link.is_up:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def _linked(
    server: RedisServer, *, on_loss: Callable[[], None] = lambda: None, timeout_s: float = 10
) -> AsyncIterator[RedisLink]:
    address = RedisAddress(host="127.0.0.1", port=server.port)
    link = RedisLink(address, timeout_s=timeout_s, probe_every_s=0.02, on_loss=on_loss)
    try:
        await link.start()
        yield link
    finally:
        await link.close()


async def _take(link: RedisLink, key: str = "total", wanted: int = 1) -> Any:
    permits, _, _ = await link.call(TAKE_RATE, key, 1_000_000, 1000, 0, wanted)
    return permits


async def _fail_until_left_alone(link: RedisLink) -> None:
    for _ in range(FAILURES):
        with pytest.raises(RedisUnavailable):
            await _take(link)
    assert not link.is_up


async def test_calls_of_one_turn_travel_together(redis_server: RedisServer) -> None:
    async with _linked(redis_server, timeout_s=5) as link:
        redis_server.command("CONFIG", "RESETSTAT")
        assert await asyncio.gather(*(_take(link, f"key-{n}") for n in range(300))) == [1] * 300
        stats = redis_server.command("INFO", "stats").decode()
        reads = int(stats.partition("total_reads_processed:")[2].split()[0])
        assert reads < 30
        clients = redis_server.command("CLIENT", "LIST").decode()
        assert clients.count("name=llm-proxy") <= LANES + 1


async def test_redis_that_is_gone_is_soon_left_alone_and_found_again(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lost = Losses()
    async with _linked(redis_server, on_loss=lost) as link:
        redis_server.kill()
        await _fail_until_left_alone(link)
        with pytest.raises(RedisUnavailable) as caught:
            await _take(link)
        assert not caught.value.was_sent
        redis_server.start()
        await lost.until_up(link)
        assert await _take(link) == 1
    messages = [record.message for record in caplog.records]
    assert sum("leaving it alone" in message for message in messages) == 1
    assert sum("can be used again" in message for message in messages) == 1


async def test_nobody_waits_longer_than_twice_the_time_limit(redis_server: RedisServer) -> None:
    async with _linked(redis_server, timeout_s=TIMEOUT_S) as link:
        redis_server.pause()
        began = monotonic()
        results = await asyncio.gather(
            *(_take(link, f"key-{n}") for n in range(600)), return_exceptions=True
        )
        # Of 60 s, if they waited in turns; the machine may be busy.
        assert monotonic() - began < 2 * TIMEOUT_S + 10
        assert all(isinstance(result, RedisUnavailable) for result in results)
        assert not link.is_up
        redis_server.resume()


@asynccontextmanager
async def _slow(server: RedisServer, delay_s: float) -> AsyncIterator[RedisAddress]:
    """A way to the server on which every answer takes so long."""
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, s: float) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(s)
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        pumps.add(asyncio.create_task(pump(reader, inner_writer, 0)))
        pumps.add(asyncio.create_task(pump(inner_reader, writer, delay_s)))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        host, port = listener.sockets[0].getsockname()
        yield RedisAddress(host=host, port=port)
    await asyncio.gather(*pumps, return_exceptions=True)


async def test_redis_that_is_always_too_slow_is_left_alone(redis_server: RedisServer) -> None:
    async with _slow(redis_server, 0.08) as address:
        link = RedisLink(address, timeout_s=0.05, probe_every_s=0.02)
        await link.start()  # which has more time
        await _fail_until_left_alone(link)
        await asyncio.sleep(0.2)  # some probes, none in time
        assert not link.is_up
        await link.close()


async def test_queue_is_bounded(redis_server: RedisServer) -> None:
    async with _linked(redis_server) as link:
        results = await asyncio.gather(
            *(_take(link, f"key-{n}") for n in range(12_000)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, RedisUnavailable)]
        assert len(refused) >= 12_000 - 10_000 - 100 * LANES
        assert not any(result.was_sent for result in refused[-1:])


@pytest.mark.parametrize(
    ("sick", "well"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["full", "read-only"],
)
async def test_redis_that_takes_no_writes_is_left_alone_until_it_does(
    redis_server: RedisServer, sick: tuple[str, ...], well: tuple[str, ...]
) -> None:
    lost = Losses()
    async with _linked(redis_server, on_loss=lost) as link:
        redis_server.command(*sick)
        await _fail_until_left_alone(link)
        await asyncio.sleep(0.1)  # some probes
        assert not link.is_up
        redis_server.command(*well)
        await lost.until_up(link)
        assert await _take(link) == 1


async def test_flapping_redis_is_used_whenever_it_is_there(redis_server: RedisServer) -> None:
    lost = Losses()
    async with _linked(redis_server, on_loss=lost, timeout_s=0.3) as link:
        for round_ in range(2):
            redis_server.pause()
            await _fail_until_left_alone(link)
            redis_server.resume()
            await lost.until_up(link)
            assert await _take(link, f"round-{round_}") == 1


async def test_server_that_forgot_its_scripts_is_taken_for_a_new_one(
    redis_server: RedisServer,
) -> None:
    lost = Losses()
    async with _linked(redis_server, on_loss=lost) as link:
        await _take(link)
        before = lost.number
        redis_server.command("SCRIPT", "FLUSH")
        assert await _take(link) == 1
        assert lost.number == before + 1


async def test_redis_that_dies_unused_is_missed_all_the_same(redis_server: RedisServer) -> None:
    lost = Losses()
    async with _linked(redis_server, on_loss=lost) as link:
        redis_server.kill()
        async with asyncio.timeout(10):
            while link.is_up:
                await asyncio.sleep(0.005)


async def test_key_of_another_program_is_in_nobody_elses_way(redis_server: RedisServer) -> None:
    redis_server.command("LPUSH", PREFIX + "theirs", "x")
    async with _linked(redis_server, timeout_s=5) as link:
        for _ in range(FAILURES + 1):
            results = await asyncio.gather(
                _take(link, "theirs"), _take(link, "ours"), return_exceptions=True
            )
            assert isinstance(results[0], RedisUnavailable)
            assert results[1] == 1
        assert link.is_up
        assert (link.counts.failed, link.counts.answered) == (FAILURES + 1, FAILURES + 1)


async def test_call_that_nobody_waits_for_any_more_disturbs_no_other(
    redis_server: RedisServer,
) -> None:
    async with _linked(redis_server, timeout_s=5) as link:
        redis_server.pause()
        given_up = [asyncio.create_task(_take(link, f"key-{n}")) for n in range(10)]
        patient = asyncio.create_task(_take(link, "patient"))
        await asyncio.sleep(0.01)
        for call in given_up:
            call.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        redis_server.resume()
        assert await patient == 1


async def test_start_without_redis_says_so_and_goes_on(redis_server: RedisServer) -> None:
    redis_server.kill()
    lost = Losses()
    address = RedisAddress(host="127.0.0.1", port=redis_server.port)
    link = RedisLink(address, timeout_s=TIMEOUT_S, probe_every_s=0.02, on_loss=lost)
    with pytest.raises(Unreachable, match=f"Redis at 127.0.0.1:{redis_server.port} can't be used"):
        await link.start()
    assert not link.is_up
    redis_server.start()
    await lost.until_up(link)
    assert await _take(link) == 1
    await link.close()


async def test_start_with_a_wrong_password_is_refused(start_redis: StartRedis) -> None:
    server = start_redis("--requirepass", "right")
    link = RedisLink(RedisAddress(host="127.0.0.1", port=server.port), timeout_s=TIMEOUT_S)
    with pytest.raises(ConfigError, match="REDIS_PASSWORD"):
        await link.start()
    await link.close()


async def test_closing_ends_every_wait(redis_server: RedisServer) -> None:
    async with _linked(redis_server, timeout_s=5) as link:
        redis_server.pause()
        calls = [asyncio.create_task(_take(link, f"key-{n}")) for n in range(2000)]
        await asyncio.sleep(0)
        await link.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, RedisUnavailable) for result in results)
        redis_server.resume()
