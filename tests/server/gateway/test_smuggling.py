"""Heads that two readers could understand in two ways are refused, and the connection closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio

H = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
SHAPES = {
    "length and coding": H + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "coding and length": H + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": H + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "two equal lengths": H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": H + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": H + b"Content-Length: +3\r\n\r\nabc",
    "negative length": H + b"Content-Length: -3\r\n\r\nabc",
    "hexadecimal length": H + b"Content-Length: 0x3\r\n\r\nabc",
    "empty length": H + b"Content-Length:\r\n\r\nabc",
    "huge length": H + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "unknown coding": H + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": H + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "coding twice": H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "odd coding": H + b"Transfer-Encoding: xchunked\r\n\r\n",
    "coding in 1.0": H.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n",
    "blank before colon": H + b"Content-Length : 3\r\n\r\nabc",
    "tab before colon": H + b"Transfer-Encoding\t: chunked\r\n\r\n",
    "folded line": H + b"X-A: 1\r\n Content-Length: 3\r\n\r\nabc",
    "folded first line": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare LF": H + b"X-A: 1\nContent-Length: 3\r\n\r\nabc",
    "only bare LFs": H.replace(b"\r\n", b"\n") + b"\n",
    "bare LF at the end": H + b"X-A: 1\n\n",
    "bare CR": H + b"X-A: 1\rContent-Length: 3\r\n\r\nabc",
    "NUL": H + b"X-A: 1\x002\r\n\r\n",
    "name with a blank": H + b"X A: 1\r\n\r\n",
    "line without a colon": H + b"X-A\r\n\r\n",
    "no name": H + b": 1\r\n\r\n",
    "no host": b"POST /v1/chat/completions HTTP/1.1\r\n\r\n",
    "two hosts": H + b"Host: b\r\n\r\n",
    "two hosts in one": b"GET /v1/models HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "host with a name before it": b"GET /v1/models HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "host with a path": b"GET /v1/models HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "two equal hosts": H + b"host: a\r\n\r\n",
    "two expectations": H + b"Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n",
    "0.9": b"GET /v1/models\r\n\r\n",
    "0.9 by name": b"GET /v1/models HTTP/0.9\r\nHost: a\r\n\r\n",
    "1.2": b"GET /v1/models HTTP/1.2\r\nHost: a\r\n\r\n",
    "2.0": b"GET /v1/models HTTP/2.0\r\nHost: a\r\n\r\n",
    "preface of 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "other protocol": b"OPTIONS /v1/models RTSP/1.0\r\nHost: a\r\n\r\n",
    "two blanks": b"GET  /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "blank in the target": b"GET /v1/models x HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab in the target": b"GET /v1/models\tx HTTP/1.1\r\nHost: a\r\n\r\n",
    "byte above ASCII in the target": b"GET /v1/models/\xe9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "control byte in the target": b"GET /v1/models/\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"FROB /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "method in small letters": b"get /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "blank line at first with LF": b"\n\nGET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_doubtful_head_is_refused_and_its_connection_closed(gate: Gate, shape: str) -> None:
    smuggled = gate.request(target=b"/smuggled", body=b"")
    client = await gate.connect()
    await client.send(SHAPES[shape] + smuggled)
    response = await client.response()
    assert (response.status, response.code) == (400, "invalid_request")
    assert response.header(b"Connection") == b"close"
    assert await client.is_left()
    assert not gate.openai.has_news()
    assert [record.status_code for record in gate.records.all] == [400]


@pytest.mark.parametrize("end", [b"\n\n", b"\nX: 1\r\n", b"\r\nX: 1\n"])
async def test_head_of_bare_line_feeds_is_not_waited_for(gate: Gate, end: bytes) -> None:
    response = await gate.ask(b"GET /v1/models HTTP/1.1\r\nHost: a" + end)
    assert (response.status, response.code) == (400, "invalid_request")


async def test_head_is_found_wherever_it_is_cut(gate: Gate) -> None:
    head = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
    client = await gate.connect()
    for cut in range(2, len(head)):
        await client.send(head[:cut])
        await asyncio.sleep(0.001)
        await client.send(head[cut:])
        assert (await client.response()).code == "endpoint_not_allowed"


async def test_bare_line_feed_is_seen_wherever_its_head_is_cut(gate: Gate) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\nX: b"
    for cut in range(1, len(head)):
        client = await gate.connect()
        await client.send(head[:cut])
        await asyncio.sleep(0.001)
        await client.send(head[cut:])
        assert (await client.response()).code == "invalid_request"


TARGETS = [
    b"/v1/./models",
    b"/v1/../models",
    b"/v1/models/..",
    b"/.",
    b"/%2e/models",
    b"/v1/%2E%2e/models",
    b"/v1/.%2e/models",
    b"/v1/models%2f..%2fadmin",
    b"/v1/models/..%5cadmin",
    b"/v1/models\\..\\admin",
    b"/openai/../manage",
    b"//v1/models",
    b"//evil.test/v1/models",
    b"/openai//v1/models",
    b"/anthropic//v1/messages",
    b"http://evil.test//v1/models",
    b"http://evil.test/../manage",
    b"/v1/models#fragment",
    b"v1/models",
    b"*",
    b"ftp://evil.test/v1/models",
]


@pytest.mark.parametrize("target", TARGETS)
async def test_doubtful_target_is_refused(gate: Gate, target: bytes) -> None:
    response = await gate.ask(gate.request(method=b"GET", target=target))
    assert (response.status, response.code) == (400, "invalid_request")
    for upstream in (gate.openai, gate.anthropic, gate.control):
        assert not upstream.has_news()


async def test_authority_of_an_absolute_target_is_ignored(gate: Gate) -> None:
    request = gate.request(method=b"GET", target=b"HTTP://evil.test:1/v1/models?x=1")
    received, response = await gate.relay(request, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    head = b"GET /v1/models?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % gate.openai.port
    assert received.startswith(head)
    assert b"evil" not in received


async def test_absolute_target_without_a_path_is_the_root(gate: Gate) -> None:
    response = await gate.ask(gate.request(method=b"GET", target=b"http://evil.test?x=/manage"))
    assert response.code == "endpoint_not_allowed"
    assert response.error["message"].startswith("/ is not")


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE"])
async def test_connect_and_trace_are_refused(gate: Gate, method: bytes) -> None:
    response = await gate.ask(gate.request(method=method, target=b"/v1/models"))
    assert response.status == 405
    response = await gate.ask(gate.request(method=b"CONNECT", target=b"evil.test:443"))
    assert response.status == 405
    assert not gate.openai.has_news()


@pytest.mark.parametrize(
    "target",
    [b"/manage", b"/manage/projects?x", b"/admin/", b"/metrics", b"/health", b"/ready", b"/live"],
)
async def test_control_paths_go_to_the_control_plane(gate: Gate, target: bytes) -> None:
    client = await gate.connect()
    request = gate.request(
        b"X-Forwarded-For: 6.6.6.6", b"X-Request-ID: mine", method=b"GET", target=target
    )
    await client.send(request)
    peer = await gate.control.accept()
    received = await peer.request()
    assert received.startswith(b"GET " + target + b" HTTP/1.1\r\nHost: llm-proxy\r\n")
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in received
    assert b"6.6.6.6" not in received
    assert b"\r\nAuthorization: Bearer " + gate.token + b"\r\n" in received
    assert received.count(b"X-Request-ID: mine") == 1
    await peer.answer(b"control")
    assert (await client.response()).body == b"control"
    assert not gate.records.all  # not an exchange of the data plane


@pytest.mark.parametrize(
    "target", [b"/%6danage/projects", b"/manage%2fprojects", b"/Manage", b"/healthy", b"/health/"]
)
async def test_nothing_is_decoded_on_the_way_to_the_control_plane(
    gate: Gate, target: bytes
) -> None:
    response = await gate.ask(gate.request(method=b"GET", target=target))
    assert response.code == "endpoint_not_allowed"
    assert not gate.control.has_news()


async def test_absolute_target_reaches_the_control_plane_like_its_path(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(method=b"GET", target=b"http://x.test/manage/tokens?limit=1"))
    received = await (await gate.control.accept()).request()
    assert received.startswith(b"GET /manage/tokens?limit=1 HTTP/1.1\r\nHost: llm-proxy\r\n")


async def test_private_management_leaves_only_the_probes(start_gate: StartGate) -> None:
    gate = await start_gate(management_is_public=False)
    for target in (b"/manage/projects", b"/admin", b"/metrics", b"http://x/manage"):
        response = await gate.ask(gate.request(method=b"GET", target=target))
        assert (response.status, response.code) == (404, "not_found")
    assert not gate.control.has_news()
    client = await gate.connect()
    await client.send(gate.request(method=b"GET", target=b"/health"))
    await (await gate.control.accept()).request()


async def test_long_url_is_414(gate: Gate) -> None:
    response = await gate.ask(gate.request(target=b"/v1/models?" + b"x" * 8182, body=b""))
    assert (response.status, response.code) == (414, "url_too_long")
    response = await gate.ask(b"GET /" + b"x" * 20_000)  # and its end isn't waited for
    assert (response.status, response.code) == (414, "url_too_long")
    received, _ = await gate.relay(
        gate.request(target=b"/v1/models?" + b"x" * 8181, body=b""),
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    )
    assert len(received) > 8192


async def test_long_head_is_431(gate: Gate) -> None:
    line = b"X-Long: " + b"x" * 1000
    response = await gate.ask(gate.request(*[line] * 66, body=b""))
    assert (response.status, response.code) == (431, "headers_too_large")
    assert response.header(b"Connection") == b"close"


async def test_many_headers_are_431(gate: Gate) -> None:
    response = await gate.ask(gate.request(*[b"X: 1"] * 126, body=b""))
    assert (response.status, response.code) == (431, "headers_too_large")
    received, _ = await gate.relay(
        gate.request(*[b"X: 1"] * 125, body=b""), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    assert received.count(b"\r\nX: 1") == 125
