"""Over TLS, which a proxy in front of the server speaks: the server of the tests can't itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from llm_proxy.errors import ConfigError
from llm_proxy.redis_address import RedisAddress
from llm_proxy.server.fleet.connections import RedisConnections, RedisUnavailable, ScriptCall
from llm_proxy.server.fleet.scripts import TAKE_RATE
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

CALL = ScriptCall(TAKE_RATE, "total", (1_000_000, 60, 0, 1))


@asynccontextmanager
async def _tls_in_front_of(server: RedisServer, authority: trustme.CA) -> AsyncIterator[int]:
    """The port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        pumps.add(asyncio.create_task(pump(reader, inner_writer)))
        pumps.add(asyncio.create_task(pump(inner_reader, writer)))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listener:
        yield listener.sockets[0].getsockname()[1]
    await asyncio.gather(*pumps, return_exceptions=True)


async def _ask(port: int, *, ca_file: Path | None) -> None:
    address = RedisAddress(host="127.0.0.1", port=port, uses_tls=True, ca_file=ca_file)
    connections = RedisConnections(address, most=1, timeout_s=5)
    await connections.open()
    try:
        [[permits, _, _]] = await connections.run([CALL])
        assert permits == 1
    finally:
        await connections.close()


async def test_authority_of_the_settings_is_believed(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with _tls_in_front_of(redis_server, authority) as port:
        await _ask(port, ca_file=tmp_path / "ca.pem")


async def test_other_authorities_are_refused_for_good(redis_server: RedisServer) -> None:
    async with _tls_in_front_of(redis_server, trustme.CA()) as port:
        with pytest.raises(RedisUnavailable) as caught:
            await _ask(port, ca_file=None)
    assert caught.value.is_refusal


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_file_of_authorities_that_cannot_be_read_is_an_error(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"REDIS_CA_FILE .*ca\.pem can't be used"):
        await _ask(1, ca_file=path)
