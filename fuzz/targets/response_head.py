"""Heads of responses: what we accept is framed as h11 frames it, and relayed lines are clean."""

from __future__ import annotations

import re

import h11

from fuzz.target import Target, must
from llm_proxy.http1.framing import FramingError
from llm_proxy.http1.response_head import ResponseHead, parse_response_head

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DROPPED = (
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding"),
    *(b"upgrade", b"proxy-authenticate"),
)


def run(data: bytes) -> None:
    raw = (data + b"\r\n\r\n").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        head = parse_response_head(raw)
    except FramingError:
        return
    if head.status == 101:
        return  # asked for by a tunnel only, whose tests know it
    _check_lines(head)
    _check_with_h11(raw, head)


def _check_lines(head: ResponseHead) -> None:
    must(head.lines.endswith(b"\r"), "lines without their end")
    first, *lines = head.lines[:-1].split(b"\r\n")
    must(re.fullmatch(rb"HTTP/1\.1 [0-9]{3}( .*)?", first, re.DOTALL), "a status line")
    must(not {0, 10, 13} & set(first), "a control character in the status line")
    names = []
    for line in lines:
        name, colon, value = line.partition(b":")
        must(colon and _NAME.fullmatch(name), "a header name")
        must(not {0, 10, 13} & set(value), "a control character in a value")
        names.append(name.lower())
    must(not set(names) & set(_DROPPED), "a header of this hop is relayed")
    has_length = head.content_length >= 0 and head.status != 204
    must(names.count(b"content-length") == has_length, "another length")
    must(not (head.is_chunked and head.content_length >= 0), "two framings")


def _check_with_h11(raw: bytes, head: ResponseHead) -> None:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 17)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    try:
        event = client.next_event()
    except h11.RemoteProtocolError as exc:
        must("illegal" in str(exc), f"h11 refuses what is relayed: {exc}")
        return
    must(isinstance(event, h11.Response | h11.InformationalResponse), "h11 reads no response")
    must(event.status_code == head.status, "h11 reads another status")  # type: ignore[union-attr]
    if head.status < 200 or head.status in (204, 304):
        return
    ends_at_once = isinstance(client.next_event(), h11.EndOfMessage)
    must(ends_at_once == (head.content_length == 0), "h11 frames the body otherwise")


TARGET = Target(
    covers=("llm_proxy.http1.response_head", "llm_proxy.http1.headers"),
    run=run,
    words=(
        *(b"\r\n", b"\n", b"\r", b": ", b":", b"\x00", b"\t", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 "),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close, a\r\n"),
        *(b"Connection: content-type\r\n", b"Keep-Alive: timeout=5\r\n", b"X-Request-ID: a\r\n"),
        *(b"204", b"304", b"101", b"100", b"000", b"999", b"Content-Encoding: gzip\r\n"),
    ),
    seeds=(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, a\r\nA: b",
        b"HTTP/1.0 404 Not Found\r\nConnection: close\r\nx-request-id: r",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>",
        b"HTTP/1.1 304\r\nContent-Length: 5\r\nContent-Encoding: gzip",
    ),
)
