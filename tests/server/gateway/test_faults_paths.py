"""Targets that try to reach, through the data plane, what they may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio

NO_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
REFUSED = [
    b"//manage/projects",
    b"///manage",
    b"/openai//manage",
    b"/openai/../manage",
    b"/openai/..;/manage",
    b"/openai/..;a=b/manage",
    b"/openai/..%3b/manage",
    b"/openai/.%2E/manage",
    b"/openai/%2e%2e%2fmanage",
    b"/openai/%252e%252e/manage",
    b"/openai/%25252e%2525252e/manage",
    b"/openai/..%252fmanage",
    b"/openai/..%5Cmanage",
    b"/openai/..%255cmanage",
    b"/openai\\..\\manage",
    b"/v1/files/../../manage",
    b"/v1/files/a/./b",
    b"/manage/../v1/models",
    b"/manage/%2e%2e/v1/models",
    b"/health/..",
    b"/./manage",
    b"/manage/.",
    b"/..",
    b"http://h//manage",
    b"https://h/../manage",
    b"http://h/openai//manage",
    b"HTTP://user@h:80//manage",
    b"manage/projects",
    b"manage",
    b"*",
    b"?/manage",
    b"h:80",
    b"http:/manage",
    b"http:manage",
    b"file:///manage",
    b"://h/manage",
    b"/manage#x",
    b"http://h/#/manage",
    b"#",
]


@pytest.mark.parametrize("target", REFUSED)
async def test_target_that_could_be_read_as_another_is_refused(
    start_gate: StartGate, target: bytes
) -> None:
    gate = await start_gate(allowed_endpoints=("/*",))
    response = await gate.ask(gate.request(method=b"GET", target=target))
    assert (response.status, response.code) == (400, "invalid_request")
    for upstream in (gate.openai, gate.anthropic, gate.control):
        assert not upstream.has_news()
    assert (await gate.records.next()).error_code == "invalid_request"


DATA = [
    b"/%6danage/projects",
    b"/%2fmanage",
    b"/%2Fmanage",
    b"/manage%2fprojects",
    b"/manage%2Fprojects",
    b"/manage%00/projects",
    b"/manage%20/projects",
    b"/manage;x/projects",
    b"/manage%3bx",
    b"/MANAGE/projects",
    b"/Manage",
    b"/manag\x65%20",
    b"/managed",
    b"/\\manage",
    b"/metrics%2f",
    b"/openai/manage/projects",
    b"/openai/metrics",
    b"/openai/health",
    b"/v1/manage",
    b"/health/",
    b"/health%2f",
    b"/healthz",
    b"/v1/models?x=/../manage",
    b"/v1/...",
    b"/v1/..a/.b",
]


@pytest.mark.parametrize("target", DATA)
async def test_nothing_of_the_data_plane_reaches_the_control_plane(
    start_gate: StartGate, target: bytes
) -> None:
    """Even where an api allows every path: it gets them as they were sent."""
    gate = await start_gate(allowed_endpoints=("/*",))
    request = gate.request(method=b"GET", target=target)
    received, response = await gate.relay(request, NO_BODY)
    assert response.status == 200
    assert received.startswith(b"GET " + target.removeprefix(b"/openai") + b" HTTP/1.1\r\n")
    assert not gate.control.has_news()
    assert (await gate.records.next()).api == "openai"


@pytest.mark.parametrize(
    "target", [b"/manage/projects", b"/admin", b"/metrics", b"http://h/manage"]
)
@pytest.mark.parametrize("is_public", [True, False])
async def test_control_paths_never_reach_an_api(
    start_gate: StartGate, target: bytes, is_public: bool
) -> None:
    gate = await start_gate(allowed_endpoints=("/*",), management_is_public=is_public)
    client = await gate.connect()
    await client.send(gate.request(method=b"GET", target=target))
    if is_public:
        peer = await gate.control.accept()
        await peer.request()
        await peer.answer(b"control")
        assert (await client.response()).body == b"control"
    else:
        assert (await client.response()).code == "not_found"
        assert not gate.control.has_news()
    assert not gate.openai.has_news()


@pytest.mark.parametrize(
    "target", [b"http://evil.test/v1/models", b"https://evil.test:1/v1/models", b"/v1/models"]
)
@pytest.mark.parametrize("host", [b"evil.test", b"evil.test:1", b"", b"[::1]:1"])
async def test_no_request_chooses_its_upstream(gate: Gate, target: bytes, host: bytes) -> None:
    request = gate.request(b"X-Forwarded-Host: evil.test", method=b"GET", target=target)
    request = request.replace(b"proxy.test", host)
    received, response = await gate.relay(request, NO_BODY)
    assert response.status == 200
    assert received.startswith(
        b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % gate.openai.port
    )
    assert b"evil" not in received


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"TRACE", b"/v1/models"),
        (b"TRACE", b"*"),
        (b"TRACE", b"/manage/projects"),
        (b"CONNECT", b"/v1/models"),
        (b"CONNECT", b"api.openai.com:443"),
        (b"CONNECT", b"127.0.0.1:22"),
        (b"CONNECT", b"http://evil.test/"),
    ],
)
async def test_connect_and_trace_are_refused_whatever_they_ask_for(
    start_gate: StartGate, method: bytes, target: bytes
) -> None:
    gate = await start_gate(allowed_endpoints=("/*",), allowed_methods=("GET", "TRACE", "CONNECT"))
    response = await gate.ask(gate.request(method=method, target=target))
    assert (response.status, response.code) == (405, "method_not_allowed")
    for upstream in (gate.openai, gate.anthropic, gate.control):
        assert not upstream.has_news()
    assert (await gate.records.next()).status_code == 405
