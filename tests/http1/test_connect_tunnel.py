from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from llm_proxy.http1.connect_tunnel import MAX_HEAD_BYTES, open_tunnel
from llm_proxy.http1.connection import UpstreamError
from llm_proxy.http1.opening import Opening
from llm_proxy.http1.origin import Origin, Proxy
from llm_proxy.secrets import Secret
from tests.http1.tunnel_proxy import ESTABLISHED, TunnelProxy

pytestmark = pytest.mark.anyio

ORIGIN = Origin(host="api.test", port=443)


@pytest.fixture
async def tunnel_proxy(anyio_backend: object) -> AsyncIterator[TunnelProxy]:
    proxy = TunnelProxy()
    await proxy.listen()
    yield proxy
    await proxy.close()


async def ask(
    tunnel_proxy: TunnelProxy, origin: Origin = ORIGIN, *, authorization: Secret | None = None
) -> None:
    proxy = Proxy(host="127.0.0.1", port=tunnel_proxy.port, authorization=authorization)
    loop = asyncio.get_running_loop()
    _, opening = await loop.create_connection(Opening, proxy.host, proxy.port)
    try:
        async with asyncio.timeout(30):
            await open_tunnel(opening, origin, proxy)
    finally:
        opening.abort()


async def failure_of(tunnel_proxy: TunnelProxy, authorization: Secret | None = None) -> str:
    with pytest.raises(UpstreamError) as caught:
        await ask(tunnel_proxy, authorization=authorization)
    assert caught.value.code == "upstream_unreachable"
    return str(caught.value).replace(f"127.0.0.1:{tunnel_proxy.port}", "PROXY")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nProxy-agent: x\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 \r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_every_success_is_a_tunnel(tunnel_proxy: TunnelProxy, answer: bytes) -> None:
    tunnel_proxy.answer = answer
    await ask(tunnel_proxy)
    assert tunnel_proxy.heads == [b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n"]


async def test_ipv6_is_in_brackets_and_credentials_are_sent(tunnel_proxy: TunnelProxy) -> None:
    tunnel_proxy.answer = b"HTTP/1.1 200 OK\r\n\r\n"
    origin = Origin(host="2001:db8::1", port=8443)
    await ask(tunnel_proxy, origin, authorization=Secret("Basic eDp5"))
    assert tunnel_proxy.heads == [
        b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n"
        b"Proxy-Authorization: Basic eDp5\r\n\r\n"
    ]


@pytest.mark.parametrize("status", [100, 302, 403, 500, 502, 503])
async def test_refusal_names_the_proxy_and_its_status(
    tunnel_proxy: TunnelProxy, status: int
) -> None:
    tunnel_proxy.answer = b"HTTP/1.1 %d No\r\nContent-Length: 6\r\n\r\n" % status
    reason = await failure_of(tunnel_proxy)
    assert reason == f"The proxy PROXY answered {status} to CONNECT, so there is no tunnel."


async def test_credentials_are_asked_for_and_never_shown(tunnel_proxy: TunnelProxy) -> None:
    tunnel_proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    assert await failure_of(tunnel_proxy) == (
        "The proxy PROXY wants credentials (407); see HTTPS_PROXY and HTTP_PROXY."
    )
    assert await failure_of(tunnel_proxy, authorization=Secret("Basic eDp5")) == (
        "The proxy PROXY refuses the credentials (407); see HTTPS_PROXY and HTTP_PROXY."
    )


MALFORMED = "its status line is malformed"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-x\r\n\r\n", MALFORMED),
        (b"HTTP/2 200 OK\r\n\r\n", MALFORMED),
        (b"HTTP/1.1 20 OK\r\n\r\n", MALFORMED),
        (b"HTTP/1.1 2000\r\n\r\n", MALFORMED),
        (b"HTTP/1.1 2\xb9\xb90\r\n\r\n", MALFORMED),
        (b"HTTP/1.1  200\r\n\r\n", MALFORMED),
        (b"\r\n\r\n", MALFORMED),
        (ESTABLISHED + b"HTTP/1.1 200 OK\r\n\r\n", "it sent more than was asked for"),
        (b"A: b\r\n" * 3000, f"its head is longer than {MAX_HEAD_BYTES} bytes"),
    ],
)
async def test_garbage_is_no_tunnel(tunnel_proxy: TunnelProxy, answer: bytes, reason: str) -> None:
    tunnel_proxy.answer = answer
    assert await failure_of(tunnel_proxy) == (
        f"The proxy PROXY did not answer CONNECT in HTTP/1.1: {reason}."
    )
