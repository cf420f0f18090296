"""The head of an upstream's response: validated, cut, and its framing decided (RFC 9112)."""

from __future__ import annotations

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from llm_proxy.http1.framing import FramingError
from llm_proxy.http1.headers import HOP_BY_HOP, line_pattern, list_items, split_line

_DROPPED: Final = frozenset(name.encode() for name in HOP_BY_HOP)
_KEPT: Final = ("content-length", "content-type", "content-encoding", "x-request-id")
_LINES: Final = line_pattern([*HOP_BY_HOP, *_KEPT, "llm-proxy-request-id"])
_UPGRADE_LINES: Final = line_pattern(["upgrade"])
_REPEATED: Final = frozenset(
    (b"content-type", b"content-encoding", b"connection", b"keep-alive", b"transfer-encoding")
)
_MAX_KNOWN_LINES: Final = 1024
_LONGEST_KNOWN_LINE: Final = 256  # bytes: upstreams choose them

_known_lines: dict[bytes, tuple[bytes, bytes]] = {}
_VERSIONS: Final = frozenset((b"HTTP/1.1 ", b"HTTP/1.0 "))
_NO_CALLBACKS: Final = object()
_MAX_LENGTH_DIGITS: Final = 19
_CONTROLS: Final = bytes(range(32)).replace(b"\t", b"") + b"\x7f"


class ResponseHead:
    """What the connection must know to find the end, and the exchange to relay."""

    __slots__ = (
        "content_encoding",
        "content_length",
        "content_type",
        "has_body",
        "has_request_id",
        "is_chunked",
        "is_reusable",
        "lines",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.lines = b""  # status line and end-to-end headers, without the last LF
        self.content_length = -1  # -1: not announced
        self.is_chunked = False
        self.has_body = True  # whether one may follow at all
        self.is_reusable = True  # the connection, once the body has ended
        self.content_type = b""
        self.content_encoding = b""
        self.has_request_id = False


def parse_response_head(raw: bytes) -> ResponseHead:
    """`raw` ends with the empty line. Raises FramingError."""
    switches = False
    try:
        HttpResponseParser(_NO_CALLBACKS).feed_data(raw)
    except HttpParserUpgrade:  # a 101 with Upgrade, and Connection that names it; none without
        switches = True
    except HttpParserError as exc:
        raise FramingError(f"its head is malformed: {exc}") from None
    head = ResponseHead()
    status = head.status = int(raw[9:12]) if raw[:9] in _VERSIONS else 0
    if status < 100:
        raise FramingError("it does not begin with HTTP/1.1 and a status")
    if raw[12:16] != b" OK\r":
        _check_reason(raw[12 : raw.index(b"\r")])
    is_http_10 = raw[7] == 48
    if is_http_10:
        head.is_reusable = False
        raw = b"HTTP/1.1" + raw[8:]
    parts = _LINES.split(raw[:-3])
    named = b""
    for index in range(1, len(parts), 2):
        name, value = _known_lines.get(parts[index]) or _read_line(parts[index])
        if name == b"content-type":
            head.content_type = value
        elif name == b"content-length":
            if head.content_length >= 0:
                raise FramingError("it sent Content-Length twice")
            if len(value) > _MAX_LENGTH_DIGITS:
                raise FramingError("its Content-Length has too many digits")
            head.content_length = int(value)
            if status != 200 and (status == 204 or switches):  # have none (RFC 9110 section 8.6)
                parts[index] = b""
        elif name == b"content-encoding":
            head.content_encoding = value
        elif name == b"x-request-id":
            head.has_request_id = True
        else:
            parts[index] = b""
            if name == b"connection":
                named += b"," + value
            elif name == b"transfer-encoding":
                if head.is_chunked or is_http_10 or value != b"chunked":
                    raise FramingError("its Transfer-Encoding is not `chunked` in HTTP/1.1")
                head.is_chunked = True
    if head.is_chunked and head.content_length >= 0:
        raise FramingError("it sent Content-Length with Transfer-Encoding")
    head.lines = b"".join(parts)
    if named and named != b",keep-alive":
        _obey_connection(head, named)
    if switches:
        if is_http_10:
            raise FramingError("it switched protocols in HTTP/1.0")
        _switch(head, raw)
    return head


def _check_reason(reason: bytes) -> None:
    """Unlike header values it is not validated yet."""
    if len(reason.translate(None, _CONTROLS)) < len(reason):
        raise FramingError("its status line holds a control character")


def _switch(head: ResponseHead, raw: bytes) -> None:
    """The only protocol that is ever offered is WebSocket (RFC 6455 section 4.2.2)."""
    protocols = [split_line(line)[1].lower() for line in _UPGRADE_LINES.split(raw)[1::2]]
    if protocols != [b"websocket"]:
        raise FramingError("it switched to another protocol than the one offered")
    head.has_body = False
    head.lines += b"\nConnection: Upgrade\r\nUpgrade: websocket\r"


def _read_line(line: bytes) -> tuple[bytes, bytes]:
    """Both in lower case; lines that upstreams repeat in every answer are remembered."""
    name, value = split_line(line)
    known = name, value.lower()
    is_repeated = name in _REPEATED and len(line) <= _LONGEST_KNOWN_LINE
    if is_repeated and len(_known_lines) < _MAX_KNOWN_LINES:
        _known_lines[line] = known
    return known


def _obey_connection(head: ResponseHead, named: bytes) -> None:
    """Drops the headers that `Connection` names as well (RFC 9110 section 7.6.1)."""
    items = set(list_items(named))
    if b"close" in items:
        head.is_reusable = False
    others = items - {b"close", b"keep-alive", b"content-length"} - _DROPPED
    if others:
        status_line, *lines = head.lines.split(b"\n")
        kept = [line for line in lines if line.partition(b":")[0].lower() not in others]
        head.lines = b"\n".join([status_line, *kept])
