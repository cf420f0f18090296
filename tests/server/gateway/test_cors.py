from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_proxy.server.gateway.cors import add_cors

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio

ASKED = (b"Origin: https://app.test", b"Access-Control-Request-Method: POST")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def test_preflight_is_answered_here_without_a_token(gate: Gate) -> None:
    client = await gate.connect()
    line = b"Access-Control-Request-Headers: authorization,x-stainless-os"
    for _ in range(2):  # the second time, the head is known already
        await client.send(gate.request(*ASKED, line, method=b"OPTIONS", token=b""))
        response = await client.response()
        assert response.status == 204
        assert response.header(b"Access-Control-Allow-Origin") == b"https://app.test"
        assert b"POST" in (response.header(b"Access-Control-Allow-Methods") or b"")
        allowed = response.header(b"Access-Control-Allow-Headers")
        assert allowed == b"authorization,x-stainless-os"
        assert response.header(b"Access-Control-Max-Age") == b"86400"
        assert response.header(b"Vary") == b"Origin"
        assert response.header(b"LLM-Proxy-Request-ID") is not None
        record = await gate.records.next()
        assert (record.method, record.status_code, record.token_id) == ("OPTIONS", 204, "")
    assert not gate.openai.has_news()


async def test_preflight_without_asked_headers_names_the_usual_ones(gate: Gate) -> None:
    response = await gate.ask(gate.request(*ASKED, method=b"OPTIONS", token=b""))
    assert b"Authorization" in (response.header(b"Access-Control-Allow-Headers") or b"")


async def test_preflight_with_a_body_keeps_the_connection(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(*ASKED, b"Content-Length: 3", method=b"OPTIONS", token=b""))
    assert (await client.response()).status == 204
    await client.send(b"abc" + gate.request(target=b"/none", body=b""))
    assert (await client.response()).status == 404


async def test_preflight_of_a_draining_gateway_closes(gate: Gate) -> None:
    gate.gateway.is_draining = True
    client = await gate.connect()
    await client.send(gate.request(*ASKED, method=b"OPTIONS", token=b""))
    assert (await client.response()).header(b"Connection") == b"close"
    assert await client.is_left()


async def test_options_that_is_no_preflight_is_a_method_like_others(gate: Gate) -> None:
    response = await gate.ask(gate.request(ASKED[0], method=b"OPTIONS"))
    assert response.code == "method_not_allowed"
    response = await gate.ask(gate.request(ASKED[1], method=b"OPTIONS"))
    assert response.code == "method_not_allowed"


@pytest.mark.parametrize("origin", [b"https://evil.test", b"https://app.test:444", b"null", b""])
async def test_origin_that_is_not_allowed_is_refused(start_gate: StartGate, origin: bytes) -> None:
    gate = await start_gate(allowed_origins=("https://app.test",))
    line = b"Origin: " + origin
    for method, lines in ((b"OPTIONS", [line, ASKED[1]]), (b"POST", [line])):
        response = await gate.ask(gate.request(*lines, method=method, body=b"{}"))
        assert (response.status, response.code) == (403, "origin_not_allowed")
        assert response.header(b"Access-Control-Allow-Origin") is None
    assert not gate.openai.has_news()


async def test_allowed_origin_and_none_at_all_pass(start_gate: StartGate) -> None:
    gate = await start_gate(allowed_origins=("https://app.test",))
    _, response = await gate.relay(gate.request(ASKED[0], body=b"{}"), OK)
    assert response.header(b"Access-Control-Allow-Origin") == b"https://app.test"
    other = await start_gate(allowed_origins=("https://app.test",))
    _, response = await other.relay(other.request(body=b"{}"), OK)
    assert response.status == 200
    assert response.header(b"Access-Control-Allow-Origin") is None


async def test_origin_can_be_required(start_gate: StartGate) -> None:
    gate = await start_gate(require_origin=True)
    response = await gate.ask(gate.request(body=b"{}"))
    assert (response.status, response.code) == (400, "origin_required")
    _, response = await gate.relay(gate.request(ASKED[0], body=b"{}"), OK)
    assert response.status == 200


async def test_two_origins_are_no_allowed_one(start_gate: StartGate) -> None:
    gate = await start_gate(allowed_origins=("https://app.test",))
    response = await gate.ask(gate.request(ASKED[0], b"origin: https://evil.test", body=b"{}"))
    assert response.code == "origin_not_allowed"


async def test_upstreams_own_policy_is_replaced(gate: Gate) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nX-Kept: 1\r\n"
        b"access-control-expose-headers: x\r\nVary: Accept\r\nContent-Length: 0\r\n\r\n"
    )
    received, response = await gate.relay(gate.request(ASKED[0], body=b"{}"), answer)
    assert b"\r\nOrigin: https://app.test\r\n" in received
    assert response.all(b"Access-Control-Allow-Origin") == [b"https://app.test"]
    exposed = response.header(b"Access-Control-Expose-Headers") or b""
    assert b"LLM-Proxy-Request-ID" in exposed
    assert response.all(b"Vary") == [b"Accept", b"Origin"]
    assert response.header(b"X-Kept") == b"1"


async def test_refusals_can_be_read_by_a_page(gate: Gate) -> None:
    response = await gate.ask(gate.request(ASKED[0], target=b"/none", body=b""))
    assert response.status == 404
    assert response.header(b"Access-Control-Allow-Origin") == b"https://app.test"
    assert b"Retry-After" in (response.header(b"Access-Control-Expose-Headers") or b"")


async def test_lines_of_the_upstream_are_cut_whole() -> None:
    lines = b"HTTP/1.1 200 OK\r\nACCESS-CONTROL-ALLOW-ORIGIN: a\r\nB: c\r"
    kept, own = add_cors(lines, b"https://app.test")
    assert kept == b"HTTP/1.1 200 OK\r\nB: c\r"
    assert own.startswith(b"Access-Control-Allow-Origin: https://app.test\r\n")
    assert own.endswith(b"\r\n")


async def test_the_control_plane_is_read_by_no_other_page(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\nOrigin: https://app.test\r\n\r\n")
    peer = await gate.control.accept()
    await peer.request()
    await peer.send(OK)
    response = await client.response()
    assert response.status == 200
    assert response.header(b"Access-Control-Allow-Origin") is None
