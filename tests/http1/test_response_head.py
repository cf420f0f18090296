from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.http1.framing import FramingError
from llm_proxy.http1.response_head import parse_response_head


def head(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([start, *lines, b"", b""])


def test_end_to_end_headers_stay_byte_for_byte() -> None:
    raw = head(
        b"sErVeR:  odd  spacing ",
        b"Connection: keep-alive",
        b"Set-Cookie: a=1",
        b"set-cookie: b=2",
        b"Content-Length: 5",
        b"Keep-Alive: timeout=5",
        b"Content-Type: text/plain",
    )
    parsed = parse_response_head(raw)
    assert parsed.lines == (
        b"HTTP/1.1 200 OK\r\nsErVeR:  odd  spacing \r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
        b"Content-Length: 5\r\nContent-Type: text/plain\r"
    )
    assert (parsed.status, parsed.content_length, parsed.is_chunked) == (200, 5, False)
    assert parsed.content_type == b"text/plain"
    assert parsed.is_reusable


def test_chunked_is_recognised_and_dropped() -> None:
    parsed = parse_response_head(head(b"Transfer-Encoding: Chunked", b"X-Request-Id: 1"))
    assert parsed.is_chunked
    assert parsed.has_request_id
    assert parsed.content_length == -1
    assert b"hunked" not in parsed.lines


def test_an_http_1_0_answer_is_passed_on_as_1_1_and_not_kept() -> None:
    parsed = parse_response_head(head(b"A: b", start=b"HTTP/1.0 404 Not There"))
    assert parsed.lines == b"HTTP/1.1 404 Not There\r\nA: b\r"
    assert not parsed.is_reusable


def test_headers_that_connection_names_are_dropped() -> None:
    raw = head(
        b"X-Hop: 1", b"Connection: Close, x-hop, content-type", b"Content-Type: a/b", b"Y: 2"
    )
    parsed = parse_response_head(raw)
    assert parsed.lines == b"HTTP/1.1 200 OK\r\nY: 2\r"
    assert not parsed.is_reusable


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: +5"],
        [b"Content-Length: 5, 5"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Folded: a", b" b"],
        [b"Blank : a"],
        [b"Nul: \0"],
        [b"Bare: a\nInjected: b"],
        [b"no colon"],
    ],
)
def test_malformed_and_ambiguous_heads_are_refused(lines: list[bytes]) -> None:
    with pytest.raises(FramingError):
        parse_response_head(head(*lines))


@pytest.mark.parametrize(
    "start", [b"HTTP/2.0 200 OK", b"ICY 200 OK", b"HTTP/1.1 20 OK", b"GET / HTTP/1.1"]
)
def test_other_status_lines_are_refused(start: bytes) -> None:
    with pytest.raises(FramingError):
        parse_response_head(head(start=start))


SWITCH = b"HTTP/1.1 101 Switching Protocols"


def test_switch_to_websocket_is_announced_as_that_and_nothing_else() -> None:
    lines = (b"upgrade: WebSocket", b"Connection: keep-alive, X-Hop, Upgrade", b"X-Hop: 1")
    parsed = parse_response_head(head(*lines, b"Content-Length: 0", b"A: b", start=SWITCH))
    assert parsed.status == 101
    assert not parsed.has_body
    assert parsed.lines == (
        b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r"
    )


def test_switch_needs_http_11() -> None:
    lines = (b"Connection: upgrade", b"Upgrade: websocket")
    with pytest.raises(FramingError):
        parse_response_head(head(*lines, start=SWITCH.replace(b"1.1", b"1.0")))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Upgrade: websocket",),
        (b"Connection: upgrade",),
        (b"Connection: upgrade", b"Upgrade: h2c"),
        (b"Connection: upgrade", b"Upgrade: websocket, h2c"),
        (b"Connection: upgrade", b"Upgrade: h2c", b"Upgrade: websocket"),
    ],
)
def test_switch_to_anything_else_is_refused(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(FramingError):
        parse_response_head(head(*lines, start=SWITCH))


def test_offer_in_another_answer_is_dropped() -> None:
    parsed = parse_response_head(head(b"Connection: upgrade", b"Upgrade: websocket"))
    assert parsed.has_body
    assert b"pgrade" not in parsed.lines


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_else(garbage: bytes) -> None:
    for raw in (garbage + b"\r\n\r\n", head(garbage.replace(b"\r\n\r\n", b""))):
        with contextlib.suppress(FramingError):
            parse_response_head(raw)
