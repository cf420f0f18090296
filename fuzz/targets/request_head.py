"""Heads of requests: what is forwarded means one thing only, and a repeated head means the same.

An input is up to three heads of one connection, separated by `SEPARATOR`.
"""

from __future__ import annotations

import asyncio
import re

import h11

from fuzz.target import Target, must
from llm_proxy.errors import Refusal
from llm_proxy.http1.timers import Timers
from llm_proxy.providers import Api
from llm_proxy.server.gateway.api import Upstream, build_control, build_upstream
from llm_proxy.server.gateway.plan import Plan
from llm_proxy.server.gateway.request_head import LastHead, RequestHead, parse_request_head
from llm_proxy.server.gateway.routing import Router

SEPARATOR = b"\n~\n"
CREDENTIAL = b"\nAuthorization: Bearer sk-upstream\r"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOP_BY_HOP = (b"keep-alive", b"proxy-connection", b"te", b"trailer", b"http2-settings")
_SECRET = (b"x-api-key", b"api-key", b"x-goog-api-key", b"proxy-authorization")
_TELLING = (b"forwarded", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip")


async def _make_router() -> Router:
    timers = Timers(asyncio.get_running_loop())
    api = Api(
        name="a",
        base_url="http://192.0.2.1/base",
        allowed_endpoints=("/*",),
        allowed_methods=("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"),
    )
    upstreams: dict[str, Upstream] = {"a": build_upstream(api, timers, max_body=1 << 20)}
    control = build_control("/nowhere", timers)
    return Router(upstreams, default="a", control=control, management_is_public=True)


ROUTER = asyncio.run(_make_router())


def run(data: bytes) -> None:
    last = LastHead()
    for raw in data.split(SEPARATOR)[:3]:
        raw = (raw + b"\r\n\r\n").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        fresh = _forwarded(lambda: parse_request_head(raw))  # noqa: B023 - called at once
        again = _forwarded(lambda: last.parse(raw))  # noqa: B023
        must(fresh == again, "a head that resembles the last one is taken for it")
        if isinstance(fresh, tuple):
            _check(*fresh)


def _forwarded(parse: object) -> tuple[RequestHeadFacts, bytes] | str:
    """What is remembered of a head and what goes to the upstream, or the code of the refusal."""
    assert callable(parse)
    try:
        head: RequestHead = parse()
        plan = head.plan
        if plan is None:
            plan = Plan(*ROUTER.route(head.target))
            plan.check(head, ROUTER)
            head.plan = plan
        if plan.route.upstream.is_control or plan.is_preflight:
            return "no api"
        return _facts(head), plan.upstream_head(head, CREDENTIAL)
    except Refusal as refusal:
        return refusal.code


RequestHeadFacts = tuple[bytes, bytes, int, bool, bool, bool]


def _facts(head: RequestHead) -> RequestHeadFacts:
    return (
        head.method,
        head.target,
        head.content_length,
        head.is_chunked,
        head.keeps_alive,
        head.is_http_10,
    )


def _check(facts: RequestHeadFacts, forwarded: bytes) -> None:
    method, _, length, is_chunked, _, _ = facts
    headers = _read(method, forwarded)
    names = [name for name, _ in headers]
    values = dict(headers)
    must(names.count(b"host") == 1 and values[b"host"] == b"192.0.2.1", "another Host")
    must(names.count(b"authorization") == 1, "no credential, or several")
    must(values[b"authorization"] == b"Bearer sk-upstream", "another credential")
    lengths, codings = names.count(b"content-length"), names.count(b"transfer-encoding")
    must(lengths + codings <= 1, "more than one framing")
    must(is_chunked == bool(codings), "another coding than we read")
    if lengths:
        must(values[b"content-length"] == values[b"content-length"].strip(), "blanks in a length")
        must(int(values[b"content-length"]) == length, "another length than we read")
    else:
        must(length == 0, "a length that is not passed on")
    for name in names:
        must(name not in (*_HOP_BY_HOP, *_SECRET, *_TELLING), f"{name!r} is passed on")
        must(not name.startswith(b"x-forwarded-"), f"{name!r} is passed on")
    must((b"upgrade" in values) == (b"connection" in values), "half an upgrade is passed on")
    must(values.get(b"upgrade", b"websocket") == b"websocket", "an upgrade to anything")
    _check_with_h11(method, forwarded, length, is_chunked)


def _read(method: bytes, head: bytes) -> list[tuple[bytes, bytes]]:
    """By RFC 9112, stricter than it asks for."""
    must(head.endswith(b"\r\n\r\n"), "a head without its end")
    first, *lines = head[:-4].split(b"\r\n")
    words = first.split(b" ")
    must(len(words) == 3 and words[2] == b"HTTP/1.1" and words[0] == method, "a request line")
    must(words[1].startswith(b"/base/") or words[1].partition(b"?")[0] == b"/base", "a target")
    must(all(byte > 32 and byte != 127 for byte in words[1]), "a control character in the target")
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        must(colon and _NAME.fullmatch(name), "a header name")
        must(not {0, 10, 13} & set(value), "a control character in a value")
        headers.append((name.lower(), value.strip(b" \t")))
    return headers


def _check_with_h11(method: bytes, head: bytes, length: int, is_chunked: bool) -> None:
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
    server.receive_data(head)
    try:
        event = server.next_event()
    except h11.RemoteProtocolError as exc:
        # Stricter than the RFC in what it takes for obsolete text.
        must("illegal" in str(exc), f"h11 refuses what is passed on: {exc}")
        return
    must(isinstance(event, h11.Request) and event.method == method, "h11 reads another request")
    following = server.next_event()
    has_body = is_chunked or length > 0
    expected = h11.NEED_DATA if has_body else h11.EndOfMessage
    is_same = following is expected or isinstance(following, h11.EndOfMessage) and not has_body
    must(is_same or following is h11.PAUSED, "h11 frames the body otherwise")


_AUTHORIZATION = b"Authorization: Bearer sk-client\r\n"
TARGET = Target(
    covers=("llm_proxy.server.gateway.request_head", "llm_proxy.server.gateway.plan"),
    run=run,
    words=(
        *(b"\r\n", b"\n", b"\r", b": ", b":", b"\x00", b"\t", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"),
        *(SEPARATOR, b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n"),
        *(b"Connection: close\r\n", b"Connection: x-api-key, foo\r\n", _AUTHORIZATION, b"GET /"),
        *(b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Expect: 100-continue\r\n"),
        b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-1\r\n",
        *(
            b"x-api-key: k\r\n",
            b"X-Forwarded-For: 1\r\n",
            b"Keep-Alive: 5\r\n",
            b"TE: trailers\r\n",
        ),
        *(
            b"POST /v1/chat HTTP/1.1\r\n",
            b"HEAD ",
            b"OPTIONS ",
            b"http://a/b",
            b"Origin: http://a\r\n",
        ),
    ),
    seeds=(
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + _AUTHORIZATION,
        b"POST /v1/a?b=c HTTP/1.1\r\nHost: a\r\n"
        + _AUTHORIZATION
        + b"Content-Length: 5\r\nA: b"
        + SEPARATOR
        + b"POST /v1/a?b=c HTTP/1.1\r\nHost: a\r\n"
        + _AUTHORIZATION
        + b"Content-Length: 17\r\nA: b",
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nx-api-key: sk-1",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive, foo\r\nFoo: bar\r\napi-key: sk-1",
        b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-1",
        b"OPTIONS /a HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nAccess-Control-Request-Method: GET",
        b"GET http://b/a HTTP/1.1\r\nHost: a\r\n" + _AUTHORIZATION + b"X-Forwarded-For: 1\r\nTE: b",
    ),
)
