"""What the state machine of the client's connection found, one case at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http1.simulation import MAX_PIECE
from tests.server.gateway.simulated_gateway import TOKEN, Planned, SimulatedGateway

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Request-ID: r1\r\n"
AUTHORIZATION = b"Authorization: Bearer %b\r\n" % TOKEN


@pytest.fixture
def world() -> Iterator[SimulatedGateway]:
    world = SimulatedGateway(breaker_failures=1000, max_concurrent=0)
    yield world
    world.close()


def test_client_that_reads_nothing_from_100_continue_on_pauses_the_upstream(
    world: SimulatedGateway,
) -> None:
    client = world.connect()
    client.link.stop_reading(0)
    expect = b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    client.plan(Planned(id=b"r1", method=b"POST", raw=HEAD + AUTHORIZATION + expect))
    client.send(1000, MAX_PIECE)
    assert client.link.unsent == b"HTTP/1.1 100 Continue\r\n\r\n"  # before there is an upstream
    client.link.send(b"{}")
    world.loop.do(world.loop.dials[0].accept)
    (upstream,) = world.loop.links
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    for _ in range(10):
        upstream.send(b"x" * 100_000)
    assert len(client.link.unsent) <= 2 * MAX_PIECE
    client.link.read_on()
    assert len(client.link.received) > 1_000_000
    assert not world.loop.errors
