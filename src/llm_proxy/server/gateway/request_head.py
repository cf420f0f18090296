"""The head of a client's request: validated, cut, and its framing decided (RFC 9112)."""

from __future__ import annotations

from collections.abc import Collection
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from llm_proxy.errors import Refusal
from llm_proxy.http1.headers import HOP_BY_HOP, line_pattern, list_items, split_line

if TYPE_CHECKING:
    from llm_proxy.server.gateway.plan import Plan

MAX_HEAD_BYTES: Final = 65536
MAX_TARGET_BYTES: Final = 8192
MAX_HEADERS: Final = 128
MAX_REMEMBERED_BYTES: Final = 8192  # a connection that idles keeps its last head several times over

# The headers that a client's token may be in, the first one found is taken.
CREDENTIALS: Final = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
# Browsers can give a WebSocket no headers, so they send the key as a sub-protocol.
KEY_PROTOCOL: Final = b"openai-insecure-api-key."
# Headers that would tell the upstream who the client is.
IDENTIFYING: Final = (
    "forwarded",
    "x-forwarded-*",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-ipcountry",
    "x-original-forwarded-for",
)
# Headers that are looked at and passed on.
_KEPT: Final = frozenset(
    (
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"origin",
        b"x-request-id",
        b"idempotency-key",
        b"access-control-request-method",
        b"access-control-request-headers",
        b"sec-websocket-protocol",
    )
)
_LINES: Final = line_pattern(
    [
        *HOP_BY_HOP,
        *IDENTIFYING,
        *(name.decode() for name in (*CREDENTIALS, *_KEPT)),
        "host",
        "expect",
    ]
)
_NEVER_ALLOWED: Final = frozenset((b"CONNECT", b"TRACE"))  # a tunnel for anybody; an echo of keys
# Of a host and port by RFC 3986 section 3.2: unreserved, percent-encoded, sub-delims, `[v6]:port`.
_HOST_BYTES: Final = (ascii_letters + digits + "-._~%!$&'()*+,;=:[]").encode()
_NO_CALLBACKS: Final = object()
_MAX_LENGTH_DIGITS: Final = 15
_AT_MOST_ONCE: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))


class RequestHead:
    """`parts` are the head's pieces as `headers.py` cuts them, dropped lines already empty.
    It may serve many requests of a connection, one after the other: what takes part in one of them
    alters nothing here but the plan."""

    __slots__ = (
        "content_length",
        "credential_at",
        "host_at",
        "is_chunked",
        "is_http_10",
        "keeps_alive",
        "key_protocol",
        "length_at",
        "length_line",
        "method",
        "named",
        "offers_websocket",
        "parts",
        "plan",
        "target",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.parts: list[bytes] = []
        self.named: dict[bytes, bytes] = {}  # values of the cut headers, by lower-case name
        self.host_at = 0  # indexes in `parts`; 0: there is none
        self.credential_at = 0
        self.content_length = 0
        self.length_at = 0
        self.length_line = b""  # of Content-Length; counts, not what `parts` has there
        self.key_protocol = b""  # what a sub-protocol said after KEY_PROTOCOL
        self.offers_websocket = False
        self.plan: Plan | None = None
        self.is_chunked = False
        self.is_http_10 = False
        self.keeps_alive = True


class LastHead:
    """Clients repeat themselves: on a kept connection the next head is the last one again, but for
    the digits of its Content-Length. Such a head needs no second look."""

    __slots__ = ("_after", "_before", "_head", "_length_name", "_raw")

    def __init__(self) -> None:
        self._raw = b""
        self._before = b""
        self._after = b""
        self._length_name = b""
        self._head: RequestHead | None = None

    def parse(self, raw: bytes) -> RequestHead:
        """As `parse_request_head`."""
        if raw == self._raw:
            assert self._head is not None
            return self._head
        head = self._recall(raw)
        if head is None:
            head = parse_request_head(raw)
            if len(raw) > MAX_REMEMBERED_BYTES:
                return head
            # Whether a WebSocket is offered depends on the length, too.
            self._remember(raw, b"" if b"upgrade" in head.named else head.length_line)
        self._raw, self._head = raw, head
        return head

    def _remember(self, raw: bytes, line: bytes) -> None:
        """What stands before and after the digits of Content-Length; nothing fits without one."""
        before, _, after = raw.partition(line or raw)
        name, _, value = line.partition(b":")
        blank = value[: len(value) - len(value.lstrip())]
        self._length_name = name + b":" + blank
        self._before, self._after = before + self._length_name, b"\r" + after

    def _recall(self, raw: bytes) -> RequestHead | None:
        before, after = self._before, self._after
        if self._head is None or not (raw.startswith(before) and raw.endswith(after)):
            return None
        digits = raw[len(before) : len(raw) - len(after)]
        if not digits.isdigit() or len(digits) > _MAX_LENGTH_DIGITS:
            return None
        head = self._head
        head.content_length = int(digits)
        head.length_line = self._length_name + digits + b"\r"
        return head


def parse_request_head(raw: bytes) -> RequestHead:
    """`raw` ends with the empty line. Raises Refusal."""
    offers = False
    try:
        HttpRequestParser(_NO_CALLBACKS).feed_data(raw)
    except HttpParserUpgrade:  # Upgrade, and Connection that names it
        offers = True
    except HttpParserError as exc:
        raise Refusal("invalid_request", f"This is not valid HTTP/1.1: {exc}.") from None
    head = RequestHead()
    head.parts = parts = _LINES.split(raw[:-3])
    head.method, head.target, version = _request_line(parts[0])
    named = head.named
    for index in range(1, len(parts), 2):
        name, value = split_line(parts[index])
        if name in named:
            _combine(named, name, value)
        else:
            named[name] = value
        if name in _KEPT:
            if name == b"content-length":
                head.length_at, head.length_line = index, parts[index]
            continue
        parts[index] = b""
        if name == b"host":
            head.host_at = index
        elif not head.credential_at and name in CREDENTIALS:
            head.credential_at = index
    if version == b"HTTP/1.0\r":
        head.is_http_10 = True
        head.keeps_alive = False
    elif version != b"HTTP/1.1\r":
        raise Refusal("invalid_request", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    elif not head.host_at:
        raise Refusal("invalid_request", "The request has no Host header (RFC 9112 section 3.2).")
    elif named[b"host"].translate(None, _HOST_BYTES):
        raise Refusal("invalid_request", "The Host header is not a host (RFC 9112 section 3.2).")
    _decide_framing(head)
    if b"connection" in named:
        _obey_connection(head, named[b"connection"])
    if offers:
        head.offers_websocket = _offers_websocket(head)
    if b"sec-websocket-protocol" in named:
        _take_key_protocol(head)
    if raw.count(b"\n") > MAX_HEADERS + 2:
        raise Refusal("headers_too_large", f"There are more than {MAX_HEADERS} headers.")
    return head


def _request_line(text: bytes) -> tuple[bytes, bytes, bytes]:
    line = text.partition(b"\n")[0].split(b" ")
    if len(line) != 3 or not line[0][:1].isalpha():  # llhttp skips CRs before the method
        raise Refusal("invalid_request", "The request line is not `METHOD target HTTP/1.1`.")
    if line[0] in _NEVER_ALLOWED:
        raise Refusal(
            "method_not_allowed",
            f"{line[0].decode()} is never allowed here.",
            headers={"Allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
        )
    if len(line[1]) > MAX_TARGET_BYTES:
        raise Refusal("url_too_long", f"The URL is longer than {MAX_TARGET_BYTES} bytes.")
    return line[0], line[1], line[2]


def _combine(named: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    if name in _AT_MOST_ONCE:
        raise Refusal("invalid_request", f"There is more than one {name.decode()} header.")
    if name not in CREDENTIALS:
        named[name] += b"," + value


def _decide_framing(head: RequestHead) -> None:
    coding = head.named.get(b"transfer-encoding")
    length = head.named.get(b"content-length")
    if coding is not None:
        if length is not None or head.is_http_10 or coding.lower() != b"chunked":
            raise Refusal(
                "invalid_request",
                "Transfer-Encoding may only be `chunked`, in HTTP/1.1, without Content-Length.",
            )
        head.is_chunked = True
    elif length is not None:
        if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
            raise Refusal("invalid_request", "Content-Length is not a plain, short number.")
        head.content_length = int(length)


def _obey_connection(head: RequestHead, value: bytes) -> None:
    """Persistence, and the headers that `Connection` names (RFC 9110 section 7.6.1)."""
    items = set(list_items(value))
    if b"close" in items:
        head.keeps_alive = False
    elif head.is_http_10 and b"keep-alive" in items:
        head.keeps_alive = True
    others = items - {b"close", b"keep-alive", b"host", *_KEPT, *CREDENTIALS}
    others -= {name.encode() for name in HOP_BY_HOP}
    if others:
        drop_lines(head.parts, others)


def _offers_websocket(head: RequestHead) -> bool:
    """Upgrade is a hop-by-hop offer. This hop declines all others, h2c above all, and any by a
    request with a body, which would have to pass before the switch (RFC 9110 section 7.8)."""
    has_body = head.is_chunked or head.content_length > 0
    is_possible = head.method == b"GET" and not head.is_http_10 and not has_body
    return is_possible and b"websocket" in list_items(head.named[b"upgrade"])


def _take_key_protocol(head: RequestHead) -> None:
    """A client's token must not reach the upstream in this form either."""
    for index in range(1, len(head.parts), 2):
        line = head.parts[index]
        if line[1:].lower().startswith(b"sec-websocket-protocol:"):
            head.parts[index] = _without_keys(head, line)


def _without_keys(head: RequestHead, line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    items = [item.strip() for item in value.split(b",")]
    kept = [item for item in items if not item.lower().startswith(KEY_PROTOCOL)]
    if len(kept) == len(items):
        return line
    for item in items:
        if item.lower().startswith(KEY_PROTOCOL) and not head.key_protocol:
            head.key_protocol = item[len(KEY_PROTOCOL) :]
    return b"%b: %b\r" % (name, b", ".join(kept)) if any(kept) else b""


def drop_lines(parts: list[bytes], names: Collection[bytes]) -> None:
    for index, text in enumerate(parts):
        first, *lines = text.split(b"\n")  # the first is the request line, or empty
        kept = [line for line in lines if line.partition(b":")[0].lower() not in names]
        parts[index] = b"\n".join([first, *kept])
