from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from llm_proxy.http1.origin import Origin
from llm_proxy.http1.pool import Pool
from llm_proxy.http1.resolver import Resolver
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


async def test_idle_connection_whose_end_came_in_the_same_turn_is_passed_over(
    upstream: Upstream,
) -> None:
    pool = upstream.pool()
    handler = upstream.handler(pool).ask()
    await serve(handler, await upstream.accept())
    (await handler.connected()).eof_received()  # a FIN; that it is lost is told a turn later
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


class FailingFirst:
    """A lookup that knows no address the first `failures` times."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.asked = 0

    def __call__(self, host: str) -> list[str]:
        self.asked += 1
        return ["127.0.0.1"] if self.asked > self._failures else []


def impatient_pool(upstream: Upstream, lookup: FailingFirst, **options: Any) -> Pool:
    """Of a name that is looked up anew for every try."""
    pool = Pool(
        Origin(host="api.test", port=upstream.port),
        upstream.timers,
        resolver=Resolver(lookup, clock=itertools.count(0.0, 100.0).__next__),
        **options,
    )
    upstream.pools.append(pool)
    return pool


async def test_connecting_is_tried_again_as_often_as_is_configured(upstream: Upstream) -> None:
    lookup = FailingFirst(2)
    pool = impatient_pool(upstream, lookup, attempts=2)
    await serve(upstream.handler(pool).ask(), await upstream.accept())
    assert (lookup.asked, pool.connects, pool.connect_failures, pool.retries.count) == (3, 1, 2, 2)


async def test_last_failure_is_told(upstream: Upstream) -> None:
    lookup = FailingFirst(3)
    pool = impatient_pool(upstream, lookup, attempts=2)
    error = (await upstream.handler(pool).ask().done()).error
    assert str(error) == "The upstream's host name could not be resolved."
    assert (lookup.asked, pool.connects, pool.connect_failures, pool.waiting_count) == (3, 0, 3, 0)


async def test_connecting_is_not_tried_again_beyond_the_budget(upstream: Upstream) -> None:
    lookup = FailingFirst(1000)
    pool = impatient_pool(upstream, lookup, attempts=1)
    for handler in [upstream.handler(pool).ask() for _ in range(40)]:
        await handler.done()
    assert pool.retries.count == 10
    assert pool.connect_failures == 50


async def test_nothing_is_tried_again_for_who_gave_up(upstream: Upstream) -> None:
    lookup = FailingFirst(1000)
    pool = impatient_pool(upstream, lookup, attempts=1000)
    handler = upstream.handler(pool).ask()
    while not pool.connect_failures:
        await asyncio.sleep(0.001)
    pool.cancel(handler)
    await asyncio.sleep(0)
    asked = lookup.asked
    await asyncio.sleep(0.3)  # more than the next waits can be
    assert lookup.asked == asked
    assert handler.error is None
    assert pool.waiting_count == 0


async def test_who_gave_up_may_ask_again(upstream: Upstream) -> None:
    pool = upstream.pool()
    handler = upstream.handler(pool).ask()
    await asyncio.sleep(0)
    pool.cancel(handler)
    handler.ask()
    await asyncio.sleep(0)  # the first opening ends here
    assert pool.waiting_count == 1
    pool.cancel(handler)
    assert pool.waiting_count == 0
    await asyncio.sleep(0.01)
    assert handler.connection is None


async def test_closing_opens_nothing_for_those_who_wait(upstream: Upstream) -> None:
    pool = upstream.pool(limits=Connection(max_conns=1))
    handlers = [upstream.handler(pool).ask() for _ in range(2)]
    await upstream.accept()
    await handlers[0].connected()
    await pool.close()
    await asyncio.sleep(0)
    assert pool.waiting_count == 0
    assert handlers[1].connection is None


async def test_pool_tells_its_numbers(upstream: Upstream) -> None:
    pool = upstream.pool(limits=Connection(max_conns=2))
    handlers = [upstream.handler(pool).ask() for _ in range(3)]
    assert (pool.open_count, pool.idle_count, pool.waiting_count) == (0, 0, 3)
    peers = [await upstream.accept() for _ in range(2)]
    for handler in handlers[:2]:
        await handler.connected()
    assert (pool.open_count, pool.idle_count, pool.waiting_count) == (2, 0, 1)
    for handler, peer in zip(handlers, [*peers, peers[0]], strict=True):
        await serve(handler, peer)
    assert (pool.open_count, pool.idle_count, pool.waiting_count) == (2, 2, 0)
    assert (pool.connects, pool.connect_failures) == (2, 0)
