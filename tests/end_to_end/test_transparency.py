"""What the upstream and the client see of each other through a real server, byte for byte."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import UPSTREAM_KEY
from tests.end_to_end.raw_upstream import Message, Peer, RawUpstream, connect
from tests.end_to_end.server_process import ServerProcess

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def client(proxy: ServerProcess) -> Iterator[Peer]:
    with connect(proxy.address) as peer:
        yield peer


def request_head(start: bytes, key: bytes, *lines: bytes) -> bytes:
    head = [start + b" HTTP/1.1", b"Host: proxy", b"Authorization: Bearer " + key, *lines]
    return b"\r\n".join([*head, b"", b""])


def exchange(
    client: Peer, upstream: RawUpstream, request: bytes, answer: bytes = OK
) -> tuple[Message, Message]:
    """What the upstream received, and what the client did."""
    client.send(request)
    with upstream.accept() as peer:
        received = peer.read_message()
        peer.send(answer)
        return received, client.read_message()


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/files/a%2Fb%2fc",
        b"/v1/x?q=%20+%zz&&=&a=1&a=2#",
        b"/v1/%41%c3%a4~!$&'()*+,;=:@",
        b"/v1/x?url=http://example.com/../../etc/passwd&%00",
        b"/v1/trailing//slashes//",
        b"/v1/x?",
    ],
)
def test_target_is_sent_as_it_came(
    client: Peer, raw_upstream: RawUpstream, key: bytes, target: bytes
) -> None:
    request = request_head(b"GET " + target, key)
    received, _ = exchange(client, raw_upstream, request)
    assert received.start == b"GET " + target + b" HTTP/1.1"


def test_api_prefix_is_all_that_the_target_loses(
    client: Peer, raw_upstream: RawUpstream, key: bytes
) -> None:
    request = request_head(b"GET /openai/v1/openai/x%20y?openai=/openai/", key)
    received, _ = exchange(client, raw_upstream, request)
    assert received.start == b"GET /v1/openai/x%20y?openai=/openai/ HTTP/1.1"


def test_request_headers_keep_order_case_and_duplicates(
    client: Peer, raw_upstream: RawUpstream, key: bytes
) -> None:
    lines = [
        b"X-Same: 1",
        b"user-AGENT: test/1.0 (odd; \xe4\xf6)",
        b"X-Same: 2",
        b"Cookie: a=b; c=d",
        b"x-same: 3",
        b"Accept-Encoding: gzip;q=0.5, *;q=0",
        b"X-Empty:",
    ]
    received, _ = exchange(client, raw_upstream, request_head(b"GET /v1/x", key, *lines))
    upstream_key = UPSTREAM_KEY.format(api="openai").encode()
    replaced = [b"Host: " + raw_upstream.address.encode(), b"Authorization: Bearer " + upstream_key]
    assert received.lines == replaced + lines


def test_no_private_header_reaches_the_upstream(
    client: Peer, raw_upstream: RawUpstream, key: bytes
) -> None:
    private = [
        b"X-API-Key: " + key,
        b"api-key: " + key,
        b"X-Goog-Api-Key: " + key,
        b"Forwarded: for=192.0.2.1",
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Forwarded-Anything: 192.0.2.1",
        b"X-Real-IP: 192.0.2.1",
        b"X-Client-IP: 192.0.2.1",
        b"True-Client-IP: 192.0.2.1",
        b"CF-Connecting-IP: 192.0.2.1",
        b"CF-IPCountry: XX",
        b"X-Original-Forwarded-For: 192.0.2.1",
        b"Connection: keep-alive, X-Hop",
        b"X-Hop: 192.0.2.1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authorization: Basic eDp5",
        b"TE: trailers",
        b"Upgrade: websocket",
    ]
    request = request_head(b"GET /v1/x", key, *private, b"X-Mine: stays")
    received, _ = exchange(client, raw_upstream, request)
    assert received.names() == [b"Host", b"Authorization", b"X-Mine"]
    assert all(key not in line for line in received.lines)


def test_response_keeps_status_headers_and_body(
    client: Peer, raw_upstream: RawUpstream, key: bytes
) -> None:
    body = bytes(range(256))
    lines = [
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
        b"Set-Cookie: a=1; Path=/",
        b"X-RateLimit-Remaining: 7",
        b"set-cookie: b=2",
        b"Retry-After: 12",
        b"X-Request-ID: theirs",
        b"Content-Type: application/octet-stream",
        b"Content-Length: 256",
    ]
    answer = b"\r\n".join([b"HTTP/1.1 418 I'm a teapot, truly", *lines, b"", body])
    request = request_head(b"GET /v1/x", key, b"X-Request-ID: mine-1")
    _, got = exchange(client, raw_upstream, request, answer)
    assert got.start == b"HTTP/1.1 418 I'm a teapot, truly"
    assert got.body == body
    assert got.lines[: len(lines)] == lines
    assert got.names()[len(lines) :] == [b"LLM-Proxy-Request-ID", b"Server-Timing", b"Via"]
    assert got.value(b"llm-proxy-request-id") == b"mine-1"


@pytest.mark.parametrize("status", [200, 201, 299, 301, 302, 307, 400, 401, 404, 429, 500, 599])
def test_status_is_passed_on(
    client: Peer, raw_upstream: RawUpstream, key: bytes, status: int
) -> None:
    answer = b"HTTP/1.1 %d Whatever\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n" % status
    _, got = exchange(client, raw_upstream, request_head(b"GET /v1/x", key), answer)
    assert got.start == b"HTTP/1.1 %d Whatever" % status
    assert got.value(b"location") == b"/elsewhere"


def test_compressed_body_is_untouched(client: Peer, raw_upstream: RawUpstream, key: bytes) -> None:
    packed = gzip.compress(b'{"model": "gpt-4o"}' * 100, mtime=0)
    lines = b"Content-Encoding: gzip\r\nContent-Type: application/json\r\n"
    answer = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (lines, len(packed), packed)
    request = request_head(
        b"POST /v1/x", key, b"Content-Encoding: gzip", b"Content-Length: %d" % len(packed)
    )
    received, got = exchange(client, raw_upstream, request + packed, answer)
    assert received.body == packed
    assert received.value(b"content-encoding") == b"gzip"
    assert got.body == packed
    assert got.value(b"content-encoding") == b"gzip"


def test_body_that_is_no_text_and_no_json_is_untouched(
    client: Peer, raw_upstream: RawUpstream, key: bytes
) -> None:
    body = bytes(range(256)) * 40 + b"\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n"
    lines = [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    received, _ = exchange(client, raw_upstream, request_head(b"POST /v1/x", key, *lines) + body)
    assert received.body == body


def test_event_is_passed_on_before_the_next_one_comes(
    client: Peer, raw_upstream: RawUpstream, key: bytes
) -> None:
    client.send(request_head(b"GET /v1/x", key))
    with raw_upstream.accept() as peer:
        peer.read_message()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        peer.send(b"Transfer-Encoding: chunked\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        for number in range(5):
            event = b"data: %d\n\n" % number
            peer.send(b"%x\r\n%b\r\n" % (len(event), event))
            assert client.read_until(b"\n\n\r\n").endswith(event + b"\r\n")
        peer.send(b"0\r\n\r\n")
        assert client.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"


def test_requests_of_different_lengths_on_one_connection(
    client: Peer, raw_upstream: RawUpstream, key: bytes
) -> None:
    for body in (b"short", b"a good deal longer than that", b"", b"x"):
        head = request_head(b"POST /v1/x", key, b"Content-Length: %d" % len(body))
        received, got = exchange(client, raw_upstream, head + body)
        assert received.body == body
        assert received.value(b"content-length") == b"%d" % len(body)
        assert got.body == b"ok"


def test_management_requests_of_different_lengths_on_one_connection(
    client: Peer, proxy: ServerProcess
) -> None:
    management_token = proxy.management_token.reveal().encode()
    for name in (b"short", b"a name that is longer", b"n"):
        body = b'{"name": "%b", "api_key": "sk-0123456789"}' % name
        head = request_head(
            b"POST /manage/projects", management_token, b"Content-Length: %d" % len(body)
        )
        client.send(head + body)
        got = client.read_message()
        assert got.start.startswith(b"HTTP/1.1 201 "), got.body
        assert b'"name":"%b"' % name in got.body
