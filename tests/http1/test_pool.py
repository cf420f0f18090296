from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from llm_proxy.http1.pool import Origin, Pool
from llm_proxy.providers import Connection, Timeouts

if TYPE_CHECKING:
    from tests.http1.conftest import Handler, Peer, Upstream

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serve(handler: Handler, peer: Peer) -> None:
    await peer.request()
    peer.send(ANSWER)
    await handler.done()
    assert (handler.body, handler.error) == (b"ok", None)


async def test_last_connection_put_back_is_the_first_one_taken(upstream: Upstream) -> None:
    pool = upstream.pool()
    handlers = [upstream.handler(pool).ask() for _ in range(3)]
    peers = [await upstream.accept() for _ in range(3)]
    connections = [await handler.connected() for handler in handlers]
    for peer in peers:
        await peer.request()
    for connection in connections:
        connection.data_received(ANSWER)
    following = upstream.handler(pool).ask()
    assert following.connection is connections[2]  # at once, without a task
    assert following.connection.is_reused


async def test_opening_ignores_idle_connections(upstream: Upstream) -> None:
    pool = upstream.pool()
    await serve(upstream.handler(pool).ask(), await upstream.accept())
    fresh = upstream.handler(pool)
    pool.open(fresh)
    assert not (await fresh.connected()).is_reused
    await upstream.accept()


async def test_dead_idle_connection_is_passed_over(upstream: Upstream) -> None:
    pool = upstream.pool()
    handler = upstream.handler(pool).ask()
    await serve(handler, await upstream.accept())
    (await handler.connected()).abort()  # is lost a moment later
    following = upstream.handler(pool).ask()
    assert following.connection is None
    await serve(following, await upstream.accept())


async def test_limit_holds_and_who_waits_is_served_in_order(upstream: Upstream) -> None:
    pool = upstream.pool(limits=Connection(max_conns=1))
    handlers = [upstream.handler(pool).ask() for _ in range(4)]
    peer = await upstream.accept()
    for handler in handlers:
        assert [one.connection is not None for one in handlers].count(True) <= 4
        await serve(handler, peer)
    assert len(upstream.accepted) == 1


async def test_lost_connection_lets_the_next_one_open(upstream: Upstream) -> None:
    pool = upstream.pool(limits=Connection(max_conns=1))
    first, second = upstream.handler(pool).ask(), upstream.handler(pool).ask()
    (await upstream.accept()).writer.close()
    assert (await first.done()).error is not None
    await serve(second, await upstream.accept())


async def test_failed_opening_lets_the_next_one_try(upstream: Upstream) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        origin = Origin(host="127.0.0.1", port=unused.getsockname()[1])
        pool = Pool(origin, upstream.timers, limits=Connection(max_conns=1))
        handlers = [upstream.handler(pool).ask() for _ in range(3)]
        for handler in handlers:
            error = (await handler.done()).error
            assert error is not None and error.code == "upstream_unreachable"
            assert str(error) == "The upstream refused the connection."
        await pool.close()


async def test_waiting_has_a_limit(upstream: Upstream) -> None:
    pool = upstream.pool(limits=Connection(max_conns=1), connect=3.0)
    first, early = upstream.handler(pool).ask(), upstream.handler(pool).ask()
    peer = await upstream.accept()
    upstream.timers.advance(2)
    late = upstream.handler(pool).ask()
    upstream.timers.advance(1)
    assert early.error is not None and early.error.code == "overloaded"
    assert late.error is None
    await serve(first, peer)
    await serve(late, peer)
    upstream.timers.advance(0.1)
    assert not upstream.timers.watches(pool)


async def test_who_gives_up_waiting_is_passed_over(upstream: Upstream) -> None:
    pool = upstream.pool(limits=Connection(max_conns=1))
    handlers = [upstream.handler(pool).ask() for _ in range(3)]
    peer = await upstream.accept()
    pool.cancel(handlers[1])
    await serve(handlers[0], peer)
    await serve(handlers[2], peer)
    assert handlers[1].connection is None


@pytest.mark.parametrize("has_begun", [False, True])
async def test_who_gives_up_an_opening_frees_its_place(upstream: Upstream, has_begun: bool) -> None:
    pool = upstream.pool(limits=Connection(max_conns=1))
    first, second = upstream.handler(pool).ask(), upstream.handler(pool).ask()
    if has_begun:
        await asyncio.sleep(0)
    pool.cancel(first)
    await second.connected()
    assert first.connection is None
    assert first.error is None


async def test_idle_connections_have_a_limit_of_number_and_time(upstream: Upstream) -> None:
    pool = upstream.pool(limits=Connection(max_idle_conns=1, idle_timeout=5.0))
    handlers = [upstream.handler(pool).ask() for _ in range(2)]
    peers = [await upstream.accept() for _ in range(2)]
    for handler, peer in zip(handlers, peers, strict=True):
        await serve(handler, peer)
    assert await peers[1].is_left()
    upstream.timers.advance(4)
    await serve(upstream.handler(pool).ask(), peers[0])
    upstream.timers.advance(4)
    assert not peers[0].reader.at_eof()
    upstream.timers.advance(2)
    assert await peers[0].is_left()


async def test_connecting_has_a_limit(upstream: Upstream) -> None:
    """A server that doesn't speak TLS, and waits for the client to say something else."""
    origin = Origin(host="127.0.0.1", port=upstream.port, tls=ssl.create_default_context())
    pool = Pool(
        origin, upstream.timers, timeouts=Timeouts(connect=0.05), limits=Connection(max_conns=1)
    )
    handler = await upstream.handler(pool).ask().done()
    assert handler.error is not None
    assert str(handler.error) == "Connecting to the upstream took longer than 0.05 s."
    await pool.close()


async def test_unix_socket_that_is_not_there_is_unreachable(upstream: Upstream) -> None:
    pool = Pool(Origin(host="x", unix_path="/no/such/socket"), upstream.timers)
    handler = await upstream.handler(pool).ask().done()
    assert handler.error is not None
    assert str(handler.error) == "The upstream could not be reached."


async def test_closing_ends_what_is_open_and_what_is_being_opened(upstream: Upstream) -> None:
    pool = upstream.pool()
    busy = upstream.handler(pool).ask()
    peer = await upstream.accept()
    await peer.request()
    opening = upstream.handler(pool).ask()
    await pool.close()
    assert await peer.is_left()
    assert not busy.is_done.is_set()
    assert opening.connection is None
    assert opening.error is None


def test_origin_is_written_as_an_address() -> None:
    assert str(Origin(host="a.test", port=443)) == "a.test:443"
    assert str(Origin(host="x", unix_path="/run/x")) == "/run/x"
