from __future__ import annotations

import asyncio

import pytest

from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer, start_mock
from llm_proxy.errors import ConfigError

pytestmark = pytest.mark.anyio

MODELS = b"GET /v1/models HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer k\r\n"


async def _connect(mock: MockServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = mock.address.rsplit(":", 1)
    return await asyncio.open_connection(host.strip("[]"), int(port))


async def test_the_address_is_the_one_it_listens_on() -> None:
    mock = await start_mock("127.0.0.1", 0)
    host, port = mock.address.split(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    await mock.close()
    with pytest.raises(OSError, match="refused|failed"):
        await asyncio.open_connection(host, int(port))


async def test_a_port_in_use_is_explained(mock: MockServer) -> None:
    port = int(mock.address.split(":")[1])
    with pytest.raises(ConfigError, match=rf"can't listen on 127.0.0.1:{port}: .*another address"):
        await start_mock("127.0.0.1", port)


async def test_an_address_of_another_machine_is_explained() -> None:
    with pytest.raises(ConfigError, match="can't listen on 192.0.2.1:0"):
        await start_mock("192.0.2.1", 0)  # reserved for documentation, RFC 5737


async def test_closing_breaks_off_what_is_under_way() -> None:
    mock = await start_mock("127.0.0.1", 0)
    reader, writer = await _connect(mock)
    writer.write(MODELS + b"X-Mock-Delay: 60s\r\n\r\n")
    while not mock.requests:
        await asyncio.sleep(0.001)
    await mock.close()
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    assert not mock.connections
    writer.close()
    await writer.wait_closed()


async def test_closing_a_mock_that_never_listened_is_fine() -> None:
    await MockServer(MockOptions()).close()


@pytest.mark.parametrize("mock_options", [MockOptions(history=2)], indirect=True)
async def test_only_the_latest_requests_are_remembered(mock: MockServer) -> None:
    reader, writer = await _connect(mock)
    for number in range(4):
        writer.write(b"GET /%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % number)
        await reader.readuntil(b"}}")
    assert [received.target for received in mock.requests] == [b"/2", b"/3"]
    writer.close()
    await writer.wait_closed()


async def test_a_sweep_closes_connections_that_have_been_idle_for_too_long(
    mock: MockServer,
) -> None:
    reader, writer = await _connect(mock)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.readuntil(b"}}")
    mock.sweep(longest_idle_s=-1)
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_sweep_leaves_fresh_connections_alone(mock: MockServer) -> None:
    reader, writer = await _connect(mock)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.readuntil(b"}}")
    mock.sweep()
    writer.write(MODELS + b"\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_an_ipv6_address_is_bracketed() -> None:
    try:
        mock = await start_mock("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 here")
    assert mock.address.startswith("[::1]:")
    await mock.close()
