from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from llm_proxy.limits import LimitDefaults, Limits
from llm_proxy.server.gateway.gateway import MAX_HELD_BYTES, Gateway
from llm_proxy.server.gateway.metrics import Metrics

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio


async def test_gateway_begins_open_and_without_debug_headers(gate: Gate) -> None:
    shared = gate.gateway
    fresh = Gateway(
        router=shared.router,
        tokens=shared.tokens,
        timers=shared.timers,
        recorder=None,
        metrics=Metrics(),
    )
    assert not fresh.is_draining
    assert not fresh.debug_headers


async def test_requests_over_the_limit_are_refused_and_management_is_not(
    start_gate: StartGate,
) -> None:
    gate = await start_gate(limits=LimitDefaults(total=Limits(max_concurrent=2)))
    clients = [await gate.connect() for _ in range(2)]
    for client in clients:
        await client.send(gate.request(body=b"{}"))
    peers = [await gate.openai.accept() for _ in clients]
    refused = await gate.ask(gate.request(body=b"{}"))
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.header(b"Retry-After") == b"1"
    probing = await gate.connect()
    await probing.send(gate.request(method=b"GET", target=b"/health"))
    await (await gate.control.accept()).answer(b"well")
    assert (await probing.response(method="GET")).body == b"well"
    await peers[0].request()
    await peers[0].answer()
    await clients[0].response()
    await clients[0].send(gate.request(body=b"{}"))  # there is room again
    await peers[0].request()
    clients[1].close()
    await peers[0].answer()
    await clients[0].response()
    for _ in range(4):
        await gate.records.next()
    assert gate.gateway.running == 0
    assert await gate.counted() == 3  # the refused one isn't counted


async def test_bodies_that_wait_to_be_checked_are_bounded_in_sum(start_gate: StartGate) -> None:
    gate = await start_gate(param_whitelist={"model": ("gpt-4*",)})
    gate.gateway.held_bytes = MAX_HELD_BYTES - 150_000  # by other connections
    request = gate.request(b"Content-Type: application/json", b"Content-Length: 1000000")
    patient = await gate.connect()
    await patient.send(request + b"[" * 100_000)
    async with asyncio.timeout(30):
        while gate.gateway.held_bytes != MAX_HELD_BYTES - 50_000:
            await asyncio.sleep(0.001)
    refused = await gate.ask(request + b"[" * 100_000)
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.header(b"Retry-After") == b"1"
    patient.close()
    for _ in range(2):
        await gate.records.next()
    assert gate.gateway.held_bytes == MAX_HELD_BYTES - 150_000


async def test_connections_share_tokens_and_upstreams(gate: Gate) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    await gate.relay(gate.request(body=b"1"), answer)
    other = await gate.connect()
    await other.send(gate.request(body=b"2"))
    peer = gate.openai.all[0]
    assert (await peer.request()).endswith(b"2")
    assert len(gate.grants.loads) == 1
