"""Requests to upstreams through a real CONNECT proxy, as the environment of the server says."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest

from tests.end_to_end.conftest import Launch
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.server_process import ServerProcess, run_command
from tests.http1.tunnel_proxy import TunnelProxy

pytestmark = pytest.mark.anyio

PASSWORD = "hunter2:/x"
HOST = "upstream.invalid"  # a name that only the proxy knows
QUESTION = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
async def tunnel_proxy(anyio_backend: object) -> AsyncIterator[TunnelProxy]:
    proxy = TunnelProxy()
    await proxy.listen()
    yield proxy
    await proxy.close()


def prepare(launch: Launch, mock: MockThread, proxy: TunnelProxy) -> ServerProcess:
    port = mock.address.rpartition(":")[2]
    url = f"http://llm-proxy:hunter2%3A%2Fx@127.0.0.1:{proxy.port}"
    return launch(upstream=f"{HOST}:{port}", environ={"HTTP_PROXY": url})


def ask(server: ServerProcess, count: int) -> list[tuple[int, str]]:
    """Statuses and bodies; the server is started for it, and stopped."""
    server.start()
    with server.client(server.add_token()) as client:
        answers = [client.post("/v1/chat/completions", json=QUESTION) for _ in range(count)]
    assert server.stop() == 0
    return [(answer.status_code, answer.text) for answer in answers]


async def test_upstream_is_reached_through_the_proxy(
    launch: Launch, mock: MockThread, tunnel_proxy: TunnelProxy
) -> None:
    server = prepare(launch, mock, tunnel_proxy)
    answers = await asyncio.to_thread(ask, server, 3)
    assert [status for status, _ in answers] == [200] * 3
    (head,) = tunnel_proxy.heads  # one connection is kept
    assert head.startswith(f"CONNECT {HOST}:".encode())
    credentials = base64.b64encode(f"llm-proxy:{PASSWORD}".encode())
    assert b"\r\nProxy-Authorization: Basic " + credentials + b"\r\n" in head


async def test_proxy_that_refuses_is_named_and_its_credentials_are_not(
    launch: Launch, mock: MockThread, tunnel_proxy: TunnelProxy
) -> None:
    tunnel_proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    server = prepare(launch, mock, tunnel_proxy)
    ((status, body),) = await asyncio.to_thread(ask, server, 1)
    assert status == 502
    assert f"The proxy 127.0.0.1:{tunnel_proxy.port} refuses the credentials (407)" in body
    credentials = base64.b64encode(f"llm-proxy:{PASSWORD}".encode()).decode()
    records = str(server.records())
    for secret in ("hunter2", credentials):
        assert secret not in body + server.stderr + records


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("HTTPS_PROXY", "socks5://user:hunter2@proxy.test", "proxies are spoken to over http"),
        ("http_proxy", "http://user:hunter2@proxy.test:port", "can't be parsed"),
        ("NO_PROXY", "10.0.0.0/99", "10.0.0.0/99 isn't a host"),
    ],
)
def test_unusable_variable_stops_the_start(
    launch: Launch, name: str, value: str, reason: str
) -> None:
    server = launch(environ={name: value})
    done = run_command(server.environ, "server", "start", *server.arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {name}: ")
    assert reason in done.stderr
    assert "hunter2" not in done.stderr
