"""What goes through goes through byte for byte."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from llm_proxy.providers import CircuitBreaker
from llm_proxy.secrets import Secret

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
OWN = (b"llm-proxy-request-id", b"x-request-id", b"server-timing", b"via")


async def test_request_reaches_upstream_with_only_host_and_credential_changed(gate: Gate) -> None:
    request = (
        b"POST /v1/chat/completions?a=%7e%2F%zz&b=1+2&&c HTTP/1.1\r\n"
        b"hOsT: proxy.test\r\n"
        b"X-Zeta: 1\r\n"
        b"x-alpha:   spaced out  \r\n"
        b"AUTHORIZATION: Bearer " + gate.token + b"\r\n"
        b"X-Zeta: 2\r\n"
        b"Content-Length: 5\r\n"
        b"X-Empty:\r\n"
        b"X-Latin: caf\xe9\r\n"
        b"\r\n"
        b'{"a"}'
    )
    received, _ = await gate.relay(request, ANSWER)
    expected = request.replace(b"hOsT: proxy.test", b"Host: 127.0.0.1:%d" % gate.openai.port)
    old = b"AUTHORIZATION: Bearer " + gate.token
    assert received == expected.replace(old, b"Authorization: Bearer sk-upstream-openai-key")


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/files/%41%2e%2E.x?%00",
        b"/v1/files/a;b=c,d!$&'()*@:~",
        b"/v1/files/a%2Fb%5Cc",
        b"/v1/files/...",
        b"/v1/files/a//b",
        b"/v1/models?",
        b"/v1/models?x=//../..&y=?",
    ],
)
async def test_target_is_kept_as_it_was_sent(gate: Gate, target: bytes) -> None:
    received, _ = await gate.relay(gate.request(method=b"GET", target=target), ANSWER)
    assert received.startswith(b"GET " + target + b" HTTP/1.1\r\n")


async def test_prefix_of_the_api_is_removed_and_its_credential_placed(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(target=b"/anthropic/v1/messages?beta=%20", body=b"{}"))
    peer = await gate.anthropic.accept()
    received = await peer.request()
    assert received == (
        b"POST /v1/messages?beta=%20 HTTP/1.1\r\n"
        b"Host: 127.0.0.1:" + str(gate.anthropic.port).encode() + b"\r\n"
        b"x-api-key: sk-ant-upstream-key\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    await peer.answer()
    assert (await client.response()).status == 200


async def test_path_of_the_base_url_comes_first(start_gate: StartGate) -> None:
    gate = await start_gate(base_url="http://localhost:1/base/")
    assert gate.upstreams[0].base_path == b"/base"
    assert gate.upstreams[0].host_line == b"\nHost: localhost:1\r"


@pytest.mark.parametrize("name", [b"x-api-key", b"API-Key", b"x-goog-api-key"])
async def test_token_is_taken_from_the_headers_of_other_sdks(gate: Gate, name: bytes) -> None:
    request = gate.request(name + b": " + gate.token, token=b"", body=b"{}")
    received, response = await gate.relay(request, ANSWER)
    assert response.status == 200
    assert received.count(b"Authorization: Bearer sk-upstream-openai-key\r\n") == 1
    assert name.lower() not in received.lower()
    assert gate.token not in received


async def test_all_four_token_headers_are_removed(gate: Gate) -> None:
    lines = [name + b": a-secret-of-the-client" for name in (b"X-Api-Key", b"api-key")]
    lines += [b"x-goog-api-key: a-secret-of-the-client", b"Authorization: Bearer a-secret-too"]
    received, _ = await gate.relay(gate.request(*lines, body=b"{}"), ANSWER)
    assert b"secret" not in received
    assert gate.token not in received
    assert received.lower().count(b"key") == 1  # the upstream's own
    assert received.count(b"\r\nAuthorization: ") == 1


PRIVATE = [
    b"Connection: keep-alive, X-Hop",
    b"X-Hop: 1",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"Proxy-Authorization: Basic abc",
    b"TE: trailers",
    b"Trailer: X-Sum",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABk",
    b"Forwarded: for=1.2.3.4",
    b"X-Forwarded-For: 1.2.3.4",
    b"X-FORWARDED-Anything: 1.2.3.4",
    b"X-Real-IP: 1.2.3.4",
    b"X-Client-IP: 1.2.3.4",
    b"True-Client-IP: 1.2.3.4",
    b"CF-Connecting-IP: 1.2.3.4",
    b"CF-IPCountry: DE",
    b"X-Original-Forwarded-For: 1.2.3.4",
]


async def test_headers_of_this_hop_and_of_the_client_never_reach_the_upstream(gate: Gate) -> None:
    received, response = await gate.relay(
        gate.request(*PRIVATE, b"X-Kept: yes", body=b"{}"), ANSWER
    )
    assert response.status == 200
    names = [line.partition(b":")[0].lower() for line in received.split(b"\r\n")[1:-2]]
    assert names == [b"host", b"authorization", b"x-kept", b"content-length"]
    assert b"1.2.3.4" not in received


async def test_connection_cannot_remove_what_frames_or_routes_the_request(gate: Gate) -> None:
    line = b"Connection: content-length, host, authorization, post /v1/chat/completions?x=a"
    request = gate.request(line, target=b"/v1/chat/completions?x=a:b", body=b"{}")
    received, _ = await gate.relay(request, ANSWER)
    assert received.startswith(b"POST /v1/chat/completions?x=a:b HTTP/1.1\r\nHost: 127.0.0.1:")
    assert received.endswith(b"\r\nContent-Length: 2\r\n\r\n{}")


async def test_response_headers_are_kept_in_case_and_order_with_duplicates(gate: Gate) -> None:
    kept = (
        b"HTTP/1.1 200 Fine By Me\r\n"
        b"x-ratelimit-remaining: 7\r\nSet-Cookie: a=1\r\nServer: upstream\r\nSET-COOKIE: b=2\r\n"
        b"Retry-After: 3\r\nX-Odd:   spaced\t \r\nX-Latin: caf\xe9\r\nX-Empty:\r\n"
        b"Server-Timing: db;dur=1\r\nVia: 1.0 cache\r\nContent-Length: 2\r\n"
    )
    _, response = await gate.relay(gate.request(body=b"{}"), kept + b"\r\n{}")
    assert response.head.startswith(kept)
    own = response.head.removeprefix(kept).split(b"\r\n")[:-2]
    assert [line.partition(b":")[0].lower() for line in own] == list(OWN)


async def test_headers_of_the_upstreams_hop_are_dropped(gate: Gate) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-HOP: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: Basic\r\nTrailer: X-Sum\r\nUpgrade: h2\r\nX-Kept: 1\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    _, response = await gate.relay(gate.request(body=b"{}"), answer)
    names = [line.partition(b":")[0].lower() for line in response.lines]
    assert names == [b"x-kept", b"content-length", *OWN]


async def test_connection_of_the_upstream_cannot_remove_the_framing(gate: Gate) -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\n{}"
    _, response = await gate.relay(gate.request(body=b"{}"), answer)
    assert response.framing == "length"
    assert response.body == b"{}"


async def test_compressed_body_is_untouched(gate: Gate) -> None:
    body = gzip.compress(b'{"answer": 42}' * 100)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\n"
    answer = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    _, response = await gate.relay(
        gate.request(b"Content-Encoding: gzip", b"Accept-Encoding: gzip", body=body), answer
    )
    assert response.header(b"Content-Encoding") == b"gzip"
    assert response.body == body
    record = await gate.records.next()
    assert (record.content_encoding, record.body) == ("gzip", body)


async def test_every_final_status_passes(start_gate: StartGate) -> None:
    gate = await start_gate(circuit_breaker=CircuitBreaker(failures=0))
    client = await gate.connect()
    request = gate.request(body=b"{}")
    await client.send(request)
    peer = await gate.openai.accept()
    for status in range(200, 600):
        assert (await peer.request()).endswith(b"{}")
        if status in (204, 304):
            await peer.send(b"HTTP/1.1 %d Because\r\n\r\n" % status)
        else:
            await peer.answer(b"%d" % status, status=b"%d Because" % status)
        response = await client.response()
        assert response.head.startswith(b"HTTP/1.1 %d Because\r\n" % status)
        assert response.body == (b"" if status in (204, 304) else b"%d" % status)
        if status < 599:
            await client.send(request)
    assert [record.status_code for record in gate.records.all] == list(range(200, 600))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ],
)
async def test_head_has_no_body_whatever_it_announces(gate: Gate, head: bytes) -> None:
    client = await gate.connect()
    request = gate.request(method=b"HEAD", target=b"/v1/models")
    await client.send(request + gate.request(method=b"GET", target=b"/v1/models"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(head + b"\r\n")
    first = await client.response(method="HEAD")
    assert first.header(b"Content-Length") == (b"1234" if b"1234" in head else None)
    assert first.header(b"Transfer-Encoding") is None
    await peer.request()  # on the same connections
    await peer.answer(b"next")
    assert (await client.response()).body == b"next"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_status_without_a_body_ends_at_its_head(gate: Gate, status: bytes) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}") * 2)
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 " + status + b"\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    first = await client.response()
    assert first.header(b"ETag") == b"x"
    assert first.header(b"Transfer-Encoding") is None
    await peer.request()
    await peer.answer(b"next")
    assert (await client.response()).body == b"next"


async def test_debug_header_tells_the_upstreams_time(start_gate: StartGate) -> None:
    gate = await start_gate(debug_headers=True)
    _, response = await gate.relay(gate.request(body=b"{}"), ANSWER)
    assert float(response.header(b"X-Upstream-Response-Time") or b"-1") >= 0
    plain = await start_gate()
    _, response = await plain.relay(plain.request(body=b"{}"), ANSWER)
    assert response.header(b"X-Upstream-Response-Time") is None


async def test_server_timing_has_both_parts(gate: Gate) -> None:
    _, response = await gate.relay(gate.request(body=b"{}"), ANSWER)
    timing = response.header(b"Server-Timing") or b""
    proxy, upstream = timing.split(b", ")
    assert proxy.startswith(b"proxy;dur=") and upstream.startswith(b"upstream;dur=")
    assert response.header(b"Via") == b"1.1 llm-proxy"


async def test_head_that_only_differs_in_its_length_is_planned_anew_where_it_must_be(
    gate: Gate,
) -> None:
    """The second look at a head is skipped on a kept connection; its bytes may not be old ones."""
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    for body in (b"{}", b'{"longer": "body"}', b"", b"{}"):
        received = await peer.request()
        assert received.endswith(b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await peer.answer(body)
        assert (await client.response()).body == body
        following = {b"{}": b'{"longer": "body"}', b'{"longer": "body"}': b"", b"": b"{}"}
        await client.send(gate.request(body=following[body]))
    await peer.request()


async def test_rotated_upstream_key_is_used_on_a_kept_connection(gate: Gate) -> None:
    client = await gate.connect()
    request = gate.request(body=b"{}")
    await client.send(request)
    peer = await gate.openai.accept()
    assert b"sk-upstream-openai-key" in await peer.request()
    await peer.answer()
    await client.response()
    gate.grants.add(gate.token, token_id="token-1", upstream_keys={"openai": Secret("sk-new")})
    gate.tokens.invalidate("token", "token-1")
    await client.send(request)
    assert b"\r\nAuthorization: Bearer sk-new\r\n" in await peer.request()
