from __future__ import annotations

import asyncio

import pytest

from llm_proxy.server.gateway.proxied_connection import ProxiedConnection
from tests.server.gateway.conftest import Gate

pytestmark = pytest.mark.anyio
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def test_client_is_who_the_proxy_says(gate: Gate) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: ProxiedConnection(gate.gateway, gate.connections, client="198.51.100.7"),
        "127.0.0.1",
        0,
    )
    gate.port = server.sockets[0].getsockname()[1]
    await gate.relay(gate.request(body=b"{}"), OK)
    assert (await gate.records.next()).client_ip == "198.51.100.7"
    server.close()
