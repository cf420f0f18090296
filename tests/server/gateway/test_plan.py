from __future__ import annotations

import asyncio

import pytest

from llm_proxy.errors import Refusal
from llm_proxy.http1.timers import Timers
from llm_proxy.providers import Api
from llm_proxy.secrets import token_digest
from llm_proxy.server.gateway.api import build_control, build_upstream
from llm_proxy.server.gateway.plan import Plan, build_upstream_head, client_token
from llm_proxy.server.gateway.request_head import LastHead, parse_request_head
from llm_proxy.server.gateway.routing import Router

pytestmark = pytest.mark.anyio

LINES = b"Host: proxy\r\nAuthorization: Bearer t\r\n"
KEY = b"\nAuthorization: Bearer sk-1\r"


@pytest.fixture
async def router() -> Router:
    timers = Timers(asyncio.get_running_loop())
    api = Api(
        name="openai",
        base_url="http://up.test/base",
        allowed_endpoints=("/v1/chat",),
        allowed_methods=("POST",),
    )
    return Router(
        {"openai": build_upstream(api, timers, max_body=1)},
        default="openai",
        control=build_control("/run/control", timers),
        management_is_public=True,
    )


def plan_of(router: Router, raw: bytes) -> Plan:
    head = parse_request_head(raw)
    plan = Plan(*router.route(head.target))
    plan.check(head, router)
    return plan


async def test_good_request_is_planned(router: Router) -> None:
    plan = plan_of(router, b"POST /openai/v1/chat?x HTTP/1.1\r\n" + LINES + b"\r\n")
    assert (plan.route.endpoint, plan.query) == (b"/v1/chat", b"?x")
    assert plan.digest == token_digest(b"t")
    assert not plan.is_preflight


async def test_control_plane_needs_no_token(router: Router) -> None:
    plan = plan_of(router, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert plan.route.upstream.is_control
    assert plan.digest == b""


@pytest.mark.parametrize(
    ("line", "code"),
    [(b"GET /v1/none", "method_not_allowed"), (b"POST /v1/none", "endpoint_not_allowed")],
)
async def test_faults_of_the_head_are_refused(router: Router, line: bytes, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        plan_of(router, line + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert caught.value.code == code


async def test_upstreams_head_changes_only_in_length_and_credential(router: Router) -> None:
    last = LastHead()
    raw = b"POST /v1/chat HTTP/1.1\r\n" + LINES + b"Content-Length: %d\r\nX-A: 1\r\n\r\n"
    head = last.parse(raw % 5)
    plan = Plan(*router.route(head.target))
    expected = (
        b"POST /base/v1/chat HTTP/1.1\r\nHost: up.test\r\nAuthorization: Bearer %b\r\n"
        b"Content-Length: %d\r\nX-A: 1\r\n\r\n"
    )
    assert plan.upstream_head(head, KEY) == expected % (b"sk-1", 5)
    assert last.parse(raw % 1234) is head
    assert plan.upstream_head(head, KEY) == expected % (b"sk-1", 1234)
    other = b"\nAuthorization: Bearer sk-other\r"
    assert plan.upstream_head(head, other) == expected % (b"sk-other", 1234)


async def test_head_without_a_length_stays_the_same(router: Router) -> None:
    head = parse_request_head(b"POST /v1/chat HTTP/1.1\r\n" + LINES + b"\r\n")
    plan = Plan(*router.route(head.target))
    expected = b"POST /base/v1/chat HTTP/1.1\r\nHost: up.test\r\nAuthorization: Bearer sk-1\r\n\r\n"
    assert plan.upstream_head(head, KEY) == plan.upstream_head(head, KEY) == expected


async def test_lines_are_added_at_the_end(router: Router) -> None:
    head = parse_request_head(
        b"GET /health HTTP/1.0\r\nTransfer-Encodin: chunked\r\nX-A: 1\r\n\r\n"
    )
    plan = Plan(*router.route(head.target))
    built = build_upstream_head(head, plan, added=[b"\nX-B: 2\r"])
    assert built.startswith(b"GET /health HTTP/1.1\r\n")
    assert built.endswith(b"X-A: 1\r\nHost: llm-proxy\r\nX-B: 2\r\n\r\n")


@pytest.mark.parametrize(
    ("lines", "token"),
    [
        (b"Authorization: Bearer  a\r\n", b"a"),
        (b"authorization: bEARER a\r\n", b"a"),
        (b"X-Api-Key: b\r\nAuthorization: Bearer a\r\n", b"a"),
        (b"Authorization: Basic x\r\nx-api-key: b\r\n", b"b"),
        (b"Authorization: Bearer\r\napi-key: c\r\n", b"c"),
        (b"x-goog-api-key: d\r\napi-key: c\r\n", b"c"),
        (b"x-goog-api-key: d\r\n", b"d"),
        (b"x-api-key: first\r\nx-api-key: second\r\n", b"first"),
        (b"Sec-WebSocket-Protocol: a, openai-insecure-api-key.e\r\napi-key: c\r\n", b"c"),
        (b"Sec-WebSocket-Protocol: a, openai-insecure-api-key.e\r\n", b"e"),
    ],
)
async def test_token_is_looked_for_in_order(lines: bytes, token: bytes) -> None:
    assert (
        client_token(parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"))
        == token
    )


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Authorization: Basic x\r\n",
        b"x-api-key:\r\n",
        b"Sec-WebSocket-Protocol: openai-insecure-api-key.\r\n",
    ],
)
async def test_missing_token_is_refused(lines: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        client_token(parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"))
    assert caught.value.code == "missing_token"
