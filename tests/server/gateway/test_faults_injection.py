"""Values that travel from one side into a head or an error on the other one add nothing to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, Response

pytestmark = pytest.mark.anyio

OWN = {b"llm-proxy-request-id", b"x-request-id", b"server-timing", b"via"}
REFUSAL = {
    b"content-type",
    b"content-length",
    b"date",
    b"via",
    b"llm-proxy-request-id",
    b"x-request-id",
    b"connection",
}
CORS = {b"access-control-allow-origin", b"access-control-expose-headers", b"vary"}
ODD = [
    b"a\tb",
    b"a b: c",
    b'"><script>alert(1)</script>',
    b"%0d%0aSet-Cookie:%20a=b",
    b"\\r\\nSet-Cookie: a=b",
    b"\xe5\x98\x8a\xe5\x98\x8dSet-Cookie: a=b",  # becomes CRLF where UTF-16 is cut to bytes
    b"caf\xe9",
    b"\xff\xfe",
    b"x" * 5000,
    b"{request_id}%s%(x)s",
]


def names(response: Response) -> set[bytes]:
    found = [line.partition(b":")[0].lower() for line in response.lines]
    assert len(found) == len(set(found))
    return set(found)


@pytest.mark.parametrize("value", ODD)
async def test_odd_request_id_is_replaced_not_echoed(gate: Gate, value: bytes) -> None:
    line = b"X-Request-ID: " + value
    response = await gate.ask(gate.request(line, target=b"/none", body=b""))
    assert (names(response), value in response.head) == (REFUSAL, False)
    assert value not in response.body
    record = await gate.records.next()
    assert record.request_id.isascii()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    received, response = await gate.relay(gate.request(line, body=b"{}"), answer)
    assert line in received  # the client's own, to the upstream, as it was
    assert names(response) == OWN | {b"content-length"}
    assert value not in response.head


@pytest.mark.parametrize("value", ODD)
async def test_origin_adds_nothing_but_cors_lines(gate: Gate, value: bytes) -> None:
    line = b"Origin: " + value
    response = await gate.ask(gate.request(line, target=b"/none", body=b""))
    assert names(response) == REFUSAL | CORS
    assert response.header(b"Access-Control-Allow-Origin") == value
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    _, response = await gate.relay(gate.request(line, body=b"{}"), answer)
    assert names(response) == OWN | CORS | {b"content-length"}
    preflight = gate.request(
        line,
        b"Access-Control-Request-Method: POST",
        b"Access-Control-Request-Headers: " + value,
        method=b"OPTIONS",
    )
    response = await gate.ask(preflight)
    assert (response.status, response.header(b"Access-Control-Allow-Headers")) == (204, value)
    assert b"Set-Cookie" not in {line.partition(b":")[0] for line in response.lines}


@pytest.mark.parametrize(
    "target",
    [
        b'/v1/"},"error":{"code":"mine',
        b"/v1/%0d%0aSet-Cookie:a=b",
        b"/v1/<script>",
        b"/v1/{request_id}%s",
        b"/v1/" + b"x" * 8000,
        b"/v1/\\u000d",
    ],
)
async def test_path_in_a_message_stays_text(gate: Gate, target: bytes) -> None:
    response = await gate.ask(gate.request(target=target, body=b""))
    assert (response.status, response.code) == (404, "endpoint_not_allowed")
    assert response.error["message"].startswith(target.decode() + " is not")
    assert names(response) == REFUSAL
    assert (await gate.records.next()).endpoint == target.decode()


@pytest.mark.parametrize("value", ODD)
async def test_odd_values_of_the_upstream_are_passed_on_and_used_for_nothing(
    gate: Gate, value: bytes
) -> None:
    lines = [name + b": " + value for name in (b"X-Odd", b"X-Request-ID", b"Content-Type")]
    head = b"\r\n".join([b"HTTP/1.1 200 " + value, *lines, b"Content-Length: 2", b"", b""])
    if b"\t" in value:
        head = head.replace(b"200 a\tb", b"200 a b")
    _, response = await gate.relay(gate.request(body=b"{}"), head + b"ok")
    for line in lines:
        assert line in response.lines
    assert names(response) == OWN | {b"x-odd", b"content-type", b"content-length"}
    assert response.body == b"ok"


async def test_upstream_cannot_speak_for_the_proxy(gate: Gate) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nLLM-Proxy-Request-ID: forged\r\nllm-proxy-request-id: again\r\n"
        b"Access-Control-Allow-Origin: *\r\n"
        b"Connection: via, llm-proxy-request-id, server-timing\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    request = gate.request(b"X-Request-ID: mine", b"Origin: https://a.test", body=b"{}")
    _, response = await gate.relay(request, answer)
    assert response.header(b"LLM-Proxy-Request-ID") == b"mine"
    assert response.header(b"Access-Control-Allow-Origin") == b"https://a.test"
    assert names(response) == OWN | CORS | {b"content-length"}


async def test_client_cannot_speak_for_the_gateway_to_the_control_plane(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(
        gate.request(
            b"X-Forwarded-For: 6.6.6.6",
            b"x-forwarded-FOR: 6.6.6.7",
            b"Forwarded: for=6.6.6.8",
            b"X-Real-IP: 6.6.6.9",
            b"X-Request-ID: a b",
            b"Connection: x-forwarded-for, host, authorization",
            method=b"GET",
            target=b"/manage/projects",
        )
    )
    received = await (await gate.control.accept()).request()
    assert b"6.6.6" not in received
    lines = received.lower().split(b"\r\n")
    assert lines.count(b"x-forwarded-for: 127.0.0.1") == 1
    assert sum(line.startswith(b"host:") for line in lines) == 1
    assert sum(line.startswith(b"authorization:") for line in lines) == 1
