from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Refusal
from llm_proxy.server.gateway.request_head import LastHead, RequestHead, parse_request_head

HEAD = b"POST /v1/x?q=1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nAuthorization: Bearer t\r\n"


def kept(head: RequestHead) -> bytes:
    return b"".join(head.parts)


def test_head_is_cut_into_what_stays_and_what_counts() -> None:
    head = parse_request_head(HEAD + b"Content-Length: 12\r\nX-Two: 2 \r\n\r\n")
    assert (head.method, head.target) == (b"POST", b"/v1/x?q=1")
    assert head.named[b"authorization"] == b"Bearer t"
    assert head.content_length == 12
    assert head.length_line == b"\nContent-Length: 12\r"
    assert head.parts[head.host_at] == head.parts[head.credential_at] == b""
    assert head.host_at and head.credential_at
    expected = b"POST /v1/x?q=1 HTTP/1.1\r\nX-One: 1\r\nContent-Length: 12\r\nX-Two: 2 \r"
    assert kept(head) == expected
    assert head.keeps_alive and not head.is_chunked and not head.is_http_10


def test_first_credential_is_where_the_new_one_goes() -> None:
    head = parse_request_head(HEAD.replace(b"X-One: 1", b"x-api-key: k") + b"\r\n")
    assert head.named[b"x-api-key"] == b"k"
    assert head.credential_at == 3  # after the request line, Host and what is between


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: x, CLOSE\r\n", False),
        (b"1.1", b"Connection: x\r\nconnection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_persistence_is_decided(version: bytes, connection: bytes, keeps: bool) -> None:
    head = parse_request_head(HEAD.replace(b"1.1", version) + connection + b"\r\n")
    assert head.keeps_alive is keeps
    assert b"onnection" not in kept(head)


def test_named_headers_are_dropped_and_others_like_them_are_not() -> None:
    head = parse_request_head(
        HEAD + b"Connection: X-ONE, x-fo\r\nX-Foo: 1\r\nX-Forwarded: 2\r\nTea: 3\r\n\r\n"
    )
    assert kept(head) == b"POST /v1/x?q=1 HTTP/1.1\r\nX-Foo: 1\r\nX-Forwarded: 2\r\nTea: 3\r"


def test_same_head_is_not_parsed_again() -> None:
    last = LastHead()
    raw = HEAD + b"content-length:  10\r\nX-Two: 2\r\n\r\n"
    first = last.parse(raw)
    assert last.parse(raw) is first
    other = last.parse(raw.replace(b"10", b"2000"))
    assert other is first
    assert first.content_length == 2000
    assert first.length_line == b"\ncontent-length:  2000\r"
    assert last.parse(raw).content_length == 10
    assert last.parse(HEAD + b"\r\n") is not first


@pytest.mark.parametrize("length", [b"", b"+1", b"1 ", b" 1", b"1\r\nX: y", b"9" * 16, b"\xb2"])
def test_other_bytes_in_place_of_the_length_are_looked_at(length: bytes) -> None:
    last = LastHead()
    raw = HEAD + b"Content-Length: %b\r\n\r\n"
    first = last.parse(raw % b"10")
    try:
        expected: RequestHead | None = parse_request_head(raw % length)
    except Refusal:
        expected = None
    if expected is None:
        with pytest.raises(Refusal):
            last.parse(raw % length)
    else:
        again = last.parse(raw % length)
        assert again is not first
        assert again.content_length == expected.content_length
        assert kept(again) == kept(expected)


PIECES = [
    b"Content-Length: 5",
    b"Content-Length: 55",
    b"content-length:5",
    b"X-Length: Content-Length: 5",
    b"X: 5",
    b"Connection: close",
    b"Authorization: Bearer a",
    b"Transfer-Encoding: chunked",
    b"Host: b",
]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=4), min_size=1, max_size=6))
def test_remembered_heads_are_as_if_parsed_alone(heads: list[list[bytes]]) -> None:
    last = LastHead()
    for lines in heads:
        raw = b"\r\n".join([b"POST /x HTTP/1.1", b"Host: a", *lines, b"", b""])
        try:
            expected = parse_request_head(raw)
        except Refusal:
            with pytest.raises(Refusal):
                last.parse(raw)
            continue
        head = last.parse(raw)
        for name in ("content_length", "length_at", "length_line", "is_chunked", "keeps_alive"):
            assert getattr(head, name) == getattr(expected, name)
        assert head.named.keys() == expected.named.keys()


@given(st.binary(max_size=300))
def test_any_head_is_parsed_or_refused(noise: bytes) -> None:
    for raw in (noise + b"\r\n\r\n", HEAD + noise + b"\r\n\r\n"):
        try:
            head = parse_request_head(raw)
        except Refusal as refusal:
            assert refusal.status_code in (400, 414, 431)
        else:
            assert head.method and head.target


NAMES = st.sampled_from(
    ["X-A", "x-b", "TE", "Te", "Keep-Alive", "X-Forwarded-Proto", "Cookie", "Expect", "Forwarded"]
)


@given(st.lists(st.tuples(NAMES, st.text("ab ,;=", max_size=8)), max_size=12))
def test_what_stays_is_byte_for_byte(fields: list[tuple[str, str]]) -> None:
    fields = [field for field in fields if field[0] != "Expect"]
    lines = [f"{name}:{value}".encode() for name, value in fields]
    head = parse_request_head(b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines, b"", b""]))
    stays = [line for line in lines if line.partition(b":")[0] in (b"X-A", b"x-b", b"Cookie")]
    assert kept(head) == b"\r\n".join([b"GET / HTTP/1.1", *stays, b""])[:-1]


OFFER = b"GET /v1/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
ITEMS = b"Sec-WebSocket-Protocol: a, openai-insecure-api-key.K1 ,b,openai-insecure-api-key.K2\r\n"


@pytest.mark.parametrize(
    ("old", "new", "offers"),
    [
        (b"", b"", True),
        (b"WebSocket", b"h2c, websocket", True),
        (b"WebSocket\r\n", b"h2c\r\nupgrade: websocket\r\n", True),
        (b"WebSocket\r\n", b"websocket\r\nContent-Length: 0\r\n", True),
        (b"WebSocket", b"h2c", False),
        (b"WebSocket", b"websocket2", False),
        (b"GET", b"POST", False),
        (b"HTTP/1.1", b"HTTP/1.0", False),
        (b"Connection: Upgrade\r\n", b"", False),
        (b"Connection: Upgrade", b"Connection: close", False),
        (b"WebSocket\r\n", b"websocket\r\nContent-Length: 1\r\n", False),
        (b"WebSocket\r\n", b"websocket\r\nTransfer-Encoding: chunked\r\n", False),
    ],
)
def test_offers_of_a_websocket_are_told_from_others(old: bytes, new: bytes, offers: bool) -> None:
    head = parse_request_head(OFFER.replace(old, new, 1) + b"\r\n")
    assert head.offers_websocket is offers
    assert b"pgrade" not in kept(head)


@pytest.mark.parametrize("start", [OFFER, HEAD])
def test_keys_among_sub_protocols_are_taken_out(start: bytes) -> None:
    head = parse_request_head(start + b"Origin: o\r\n" + ITEMS + b"X: y\r\n\r\n")
    assert head.key_protocol == b"K1"
    assert kept(head).endswith(b"\nOrigin: o\r\nSec-WebSocket-Protocol: a, b\r\nX: y\r")
    assert head.parts[head.host_at] == b""


def test_sub_protocols_without_a_key_stay_byte_for_byte() -> None:
    line = b"\nSec-WebSocket-Protocol:a ,b,,c\r"
    head = parse_request_head(OFFER + line[1:] + b"\nX: openai-insecure-api-key.K\r\n\r\n")
    assert line in kept(head)
    assert head.key_protocol == b""


def test_offer_repeated_with_a_body_is_looked_at_again() -> None:
    last = LastHead()
    assert last.parse(OFFER + b"Content-Length: 0\r\n\r\n").offers_websocket
    again = last.parse(OFFER + b"Content-Length: 7\r\n\r\n")
    assert again.content_length == 7
    assert not again.offers_websocket
    assert last.parse(OFFER + b"Content-Length: 0\r\n\r\n").offers_websocket
