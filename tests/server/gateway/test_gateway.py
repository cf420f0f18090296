from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_proxy.server.gateway.gateway import Gateway

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate

pytestmark = pytest.mark.anyio


async def test_gateway_begins_open_and_without_debug_headers(gate: Gate) -> None:
    shared = gate.gateway
    fresh = Gateway(router=shared.router, tokens=shared.tokens, timers=shared.timers, recorder=None)
    assert not fresh.is_draining
    assert not fresh.debug_headers


async def test_connections_share_tokens_and_upstreams(gate: Gate) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    await gate.relay(gate.request(body=b"1"), answer)
    other = await gate.connect()
    await other.send(gate.request(body=b"2"))
    peer = gate.openai.all[0]
    assert (await peer.request()).endswith(b"2")
    assert len(gate.grants.loads) == 1
