from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.http1.conftest import Handler, Peer, Upstream

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Length: 11\r\n\r\nhello world"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"


async def begin(upstream: Upstream, **options: Any) -> tuple[Handler, Peer]:
    handler = upstream.handler(**options).ask()
    peer = await upstream.accept()
    await peer.request()
    return handler, peer


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, INTERIM + LENGTH, INTERIM + CHUNKED])
async def test_response_cut_anywhere_is_the_same(upstream: Upstream, answer: bytes) -> None:
    pool = upstream.pool()
    peer: Peer | None = None
    for cut in range(1, len(answer)):
        handler = upstream.handler(pool).ask()
        peer = peer or await upstream.accept()
        await peer.request()
        connection = await handler.connected()
        connection.data_received(answer[:cut])  # as the transport would
        connection.data_received(answer[cut:])
        await handler.done()
        assert (handler.body, handler.ends, handler.error) == (b"hello world", 1, None)
        assert handler.head is not None and handler.head.status == 200
    assert len(upstream.accepted) == 1  # all of it on one connection


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(answer=st.binary(max_size=120), places=st.lists(st.integers(0, 120), max_size=4))
async def test_any_answer_ends_or_fails_exactly_once(
    upstream: Upstream, answer: bytes, places: list[int]
) -> None:
    for raw in (answer, OK + answer, OK + b"Transfer-Encoding: chunked\r\n\r\n" + answer):
        handler = upstream.handler().ask()
        connection = await handler.connected()
        edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
        for start, end in zip(edges, edges[1:], strict=False):
            if start < end and not connection.is_closed:
                connection.data_received(raw[start:end])
        (await upstream.accept()).writer.close()
        await handler.done()
        assert (handler.error is None) == bool(handler.ends)
        assert handler.error is None or handler.error.code == "upstream_broken"


async def test_body_until_the_close_ends_with_it(upstream: Upstream) -> None:
    handler, peer = await begin(upstream)
    peer.send(OK + b"\r\nhello")
    peer.send(b" world")
    peer.writer.close()
    await handler.done()
    assert (handler.body, handler.error) == (b"hello world", None)


@pytest.mark.parametrize(
    "answer",
    [LENGTH[:-1], CHUNKED[:-1], CHUNKED[:-5], OK, b"", INTERIM],
)
async def test_close_before_the_end_is_a_failure(upstream: Upstream, answer: bytes) -> None:
    handler, peer = await begin(upstream)
    peer.send(answer)
    peer.writer.close()
    await handler.done()
    assert handler.error is not None
    assert handler.error.code == "upstream_broken"
    assert handler.error.is_untouched is (answer == b"")
    assert handler.ends == 0


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", OK + b"Content-Length: 5\r\n\r\n"),
        (b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", OK + b"Content-Length: 0\r\n\r\n"),
    ],
)
async def test_response_without_a_body_ends_at_its_head(
    upstream: Upstream, method: bytes, answer: bytes
) -> None:
    pool = upstream.pool()
    for _ in range(2):
        handler = upstream.handler(pool, method=method).ask()
        peer = upstream.accepted[0] if upstream.accepted else await upstream.accept()
        await peer.request()
        peer.send(answer)
        await handler.done()
        assert (handler.body, handler.error) == (b"", None)
    assert len(upstream.accepted) == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        LENGTH + b"surplus",
        CHUNKED + b"surplus",
        b"HTTP/1.1 204 No Content\r\n\r\nsurplus",
    ],
)
async def test_connection_is_not_kept_when_something_speaks_against_it(
    upstream: Upstream, answer: bytes
) -> None:
    handler, peer = await begin(upstream)
    peer.send(answer)
    await handler.done()
    assert handler.error is None
    assert b"surplus" not in handler.body
    assert await peer.is_left()


async def test_connection_is_not_kept_before_the_request_has_ended(upstream: Upstream) -> None:
    handler, peer = await begin(upstream, ends=False)
    peer.send(LENGTH)
    await handler.done()
    assert await peer.is_left()


async def test_connection_is_not_kept_while_the_request_waits_to_be_taken(
    upstream: Upstream,
) -> None:
    """Else the next request would wait behind it, without anybody being paused for that."""
    handler, peer = await begin(upstream, ends=False)
    connection = await handler.connected()
    while not handler.paused:
        connection.send_more(b"x" * (1 << 20), False)
    connection.send_more(b"", True)
    peer.send(LENGTH)
    await handler.done()
    assert connection.is_closed


async def test_paused_response_waits_and_then_goes_on(upstream: Upstream) -> None:
    handler, peer = await begin(upstream)
    peer.send(OK + b"Content-Length: 10\r\n\r\n")
    async with asyncio.timeout(30):
        await handler.has_news.wait()
    connection = await handler.connected()
    connection.pause()
    connection.pause()
    peer.send(b"0123456789")
    upstream.timers.advance(10_000)  # no limit of time runs against one that was told to wait
    await asyncio.sleep(0.01)
    assert handler.body == b""
    connection.resume()
    connection.resume()
    await handler.done()
    assert (handler.body, handler.error) == (b"0123456789", None)


async def test_connection_released_while_paused_reads_again(upstream: Upstream) -> None:
    pool = upstream.pool()
    handler = upstream.handler(pool).ask()
    peer = await upstream.accept()
    await peer.request()
    connection = await handler.connected()
    connection.data_received(OK + b"Content-Length: 2\r\n\r\n1")
    connection.pause()
    connection.data_received(b"2")  # was on its way
    await handler.done()
    following = upstream.handler(pool).ask()
    await peer.request()
    peer.send(LENGTH)
    await following.done()
    assert following.body == b"hello world"


async def test_slow_upstream_pauses_the_request(upstream: Upstream) -> None:
    handler, peer = await begin(upstream, ends=False)
    connection = await handler.connected()
    piece = b"x" * (1 << 20)
    while not handler.paused:
        connection.send_more(piece, False)
    size = 0
    async with asyncio.timeout(30):
        while handler.paused:
            size += len(await peer.reader.read(1 << 18))
    assert size > 0


async def test_limits_of_time(upstream: Upstream) -> None:
    pool = upstream.pool(response_header=10.0, idle=20.0)
    handler = upstream.handler(pool).ask()
    peer = await upstream.accept()
    await peer.request()
    upstream.timers.advance(9)
    peer.send(OK + b"Content-Length: 5\r\n\r\n")
    async with asyncio.timeout(30):
        await handler.has_news.wait()
    upstream.timers.advance(19)
    assert handler.error is None
    upstream.timers.advance(2)
    assert handler.error is not None and handler.error.code == "upstream_timeout"
    assert not handler.error.is_untouched
    assert await peer.is_left()


async def test_abandoned_request_tells_nobody(upstream: Upstream) -> None:
    handler, peer = await begin(upstream)
    (await handler.connected()).abandon()
    assert await peer.is_left()
    assert not handler.is_done.is_set()


async def test_lost_connection_is_not_watched_any_more(upstream: Upstream) -> None:
    handler, peer = await begin(upstream)
    connection = await handler.connected()
    assert upstream.timers.watches(connection)
    peer.writer.close()
    await handler.done()
    async with asyncio.timeout(30):
        while upstream.timers.watches(connection):
            await asyncio.sleep(0)
    connection.send_more(b"into the void", True)  # `write` on a lost transport would raise
    connection.pause()
    connection.resume()
    connection.abort()
