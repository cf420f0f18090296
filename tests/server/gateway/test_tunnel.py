"""WebSocket offers: who may make them, what each side sees of them, and what is recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from llm_proxy.providers import Auth, CircuitBreaker
from llm_proxy.secrets import new_token

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer, StartGate

pytestmark = pytest.mark.anyio

UPSTREAM_KEY = b"sk-upstream-openai-key"
TARGET = b"/v1/realtime?model=gpt-realtime"
OFFER = (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket")
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@pytest.fixture
async def gate(start_gate: StartGate) -> Gate:
    return await start_gate(allowed_endpoints=("/v1/realtime",))


def offer(gate: Gate, *lines: bytes, token: bytes | None = None, target: bytes = TARGET) -> bytes:
    return gate.request(*(OFFER + lines), method=b"GET", target=target, token=token)


async def offered(gate: Gate, request: bytes) -> tuple[Client, Peer, bytes]:
    """Both ends, and the head that the upstream got."""
    client = await gate.connect()
    await client.send(request)
    peer = await gate.openai.accept()
    return client, peer, await peer.head()


async def opened(gate: Gate) -> tuple[Client, Peer]:
    client, peer, _ = await offered(gate, offer(gate))
    await peer.send(SWITCH)
    assert (await client.response()).status == 101
    return client, peer


def protocols(head: bytes) -> list[bytes]:
    lines = [line.partition(b": ") for line in head.split(b"\r\n")]
    return [value for name, _, value in lines if name == b"Sec-WebSocket-Protocol"]


async def test_bytes_pass_both_ways_untouched(gate: Gate) -> None:
    client, peer = await opened(gate)
    for size in (1, 2, 200, 3):
        await client.send(bytes(range(256)) * size)
        assert await peer.read(256 * size) == bytes(range(256)) * size
        await peer.send(b"\r\n\r\n" * size)
        assert await client.read(4 * size) == b"\r\n\r\n" * size


async def test_upstream_sees_the_offer_with_its_own_credential(gate: Gate) -> None:
    lines = (KEY, b"Sec-WebSocket-Version: 13", b"sec-websocket-extensions: permessage-deflate")
    _, _, head = await offered(gate, offer(gate, *lines))
    start, *received = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert start == b"GET %b HTTP/1.1" % TARGET
    assert received == [
        b"Host: 127.0.0.1:%d" % gate.openai.port,
        b"Authorization: Bearer " + UPSTREAM_KEY,
        *lines,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
    ]


async def test_client_sees_the_answer_with_our_headers(gate: Gate) -> None:
    client, peer, _ = await offered(gate, offer(gate, b"Origin: https://page.test"))
    extra = b"Sec-WebSocket-Protocol: realtime\r\nContent-Length: 0\r\nX-Own: 1\r\n\r\n"
    await peer.send(SWITCH.removesuffix(b"\r\n") + extra)
    response = await client.response()
    assert response.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert response.header(b"Connection") == b"Upgrade"
    assert response.header(b"Upgrade") == b"websocket"
    assert response.header(b"Sec-WebSocket-Accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert response.header(b"Sec-WebSocket-Protocol") == b"realtime"
    assert response.header(b"X-Own") == b"1"
    assert response.header(b"Via") == b"1.1 llm-proxy"
    assert response.header(b"LLM-Proxy-Request-ID")
    for name in (b"Content-Length", b"Transfer-Encoding"):
        assert response.header(name) is None


async def test_heads_and_what_follows_may_be_cut_anywhere(gate: Gate) -> None:
    request = offer(gate)
    client = await gate.connect()
    for at in range(len(request)):
        await client.send(request[at : at + 1])
    peer = await gate.openai.accept()
    await peer.head()
    answer = SWITCH + b"hello"
    for at in range(len(answer)):
        await peer.send(answer[at : at + 1])
    assert (await client.response()).status == 101
    assert await client.read(5) == b"hello"


async def test_bytes_right_behind_either_head_are_not_lost(gate: Gate) -> None:
    client, peer, _ = await offered(gate, offer(gate) + b"early")
    await client.send(b" and eager")
    await peer.send(SWITCH + b"first words")
    assert (await client.response()).status == 101
    assert await client.read(11) == b"first words"
    assert await peer.read(15) == b"early and eager"


async def test_nothing_reaches_the_upstream_before_it_agreed(gate: Gate) -> None:
    client, peer, _ = await offered(gate, offer(gate) + b"GET / HTTP/1.1\r\n\r\n")
    await peer.answer(b"no", status=b"426 Upgrade Required")
    assert (await client.response()).status == 426
    assert (await client.response()).code == "invalid_request"  # no Host
    assert gate.gateway.metrics.tunnels == 0


async def test_early_bytes_are_held_within_bounds(gate: Gate) -> None:
    client, peer, _ = await offered(gate, offer(gate))
    block = bytes(1 << 16)
    client.writer.write(block * 64)
    while gate.client_transport().is_reading():
        await asyncio.sleep(0)
    await peer.send(SWITCH)
    assert (await client.response()).status == 101
    assert await peer.read(len(block) * 64) == block * 64


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"426 Upgrade Required", b"200 OK"])
async def test_any_other_answer_is_relayed_and_the_connections_kept(
    gate: Gate, status: bytes
) -> None:
    client, peer, _ = await offered(gate, offer(gate))
    await peer.answer(b'{"a":1}', b"Upgrade: websocket", status=status)
    response = await client.response()
    assert (response.status, response.body) == (int(status[:3]), b'{"a":1}')
    assert response.header(b"Upgrade") is None
    await client.send(offer(gate))
    await peer.head()
    await peer.send(SWITCH + b"x")
    assert (await client.response()).status == 101
    assert await client.read(1) == b"x"


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Connection: Upgrade\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n",
    ],
)
async def test_switch_to_anything_but_what_was_offered_is_broken(gate: Gate, lines: bytes) -> None:
    client, peer, _ = await offered(gate, offer(gate))
    await peer.send(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\nhello")
    assert (await client.response()).code == "upstream_broken"
    assert await peer.is_left()


async def test_switch_is_unasked_after_an_earlier_offer_on_the_connection(gate: Gate) -> None:
    client, peer, _ = await offered(gate, offer(gate))
    await peer.answer(b"no", status=b"426 Upgrade Required")
    await client.response()
    await client.send(gate.request(method=b"GET", target=TARGET))
    await peer.head()
    await peer.send(SWITCH)
    assert (await client.response()).code == "upstream_broken"


@pytest.mark.parametrize(
    "request_lines",
    [
        (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"),
        (b"Connection: Upgrade", b"Upgrade: something/1"),
        (b"Connection: close", b"Upgrade: websocket"),
        (*OFFER, b"Content-Length: 2"),
        (*OFFER, b"Transfer-Encoding: chunked"),
    ],
)
async def test_other_offers_are_declined(gate: Gate, request_lines: tuple[bytes, ...]) -> None:
    client = await gate.connect()
    await client.send(gate.request(*request_lines, method=b"GET", target=TARGET))
    head = await (await gate.openai.accept()).head()
    assert b"pgrade" not in head
    assert b"HTTP2-Settings" not in head


async def test_offer_among_others_is_taken_alone(gate: Gate) -> None:
    lines = (b"Connection: Upgrade", b"Upgrade: h2c, WebSocket")
    client = await gate.connect()
    await client.send(gate.request(*lines, method=b"GET", target=TARGET))
    head = await (await gate.openai.accept()).head()
    assert b"h2c" not in head
    assert head.endswith(b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")


async def test_offers_to_the_control_plane_are_declined(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(offer(gate, target=b"/manage/projects"))
    assert b"pgrade" not in await (await gate.control.accept()).head()


async def test_repeated_head_with_another_length_has_a_body_and_no_offer(gate: Gate) -> None:
    client, peer, _ = await offered(gate, offer(gate, b"Content-Length: 0"))
    await peer.answer(b"no", status=b"426 Upgrade Required")
    await client.response()
    await client.send(offer(gate, b"Content-Length: 5") + b"smile")
    head = await peer.head()
    assert b"pgrade" not in head
    assert await peer.read(5) == b"smile"


async def test_offer_is_admitted_like_any_request(gate: Gate) -> None:
    async def code(request: bytes) -> str:
        return (await gate.ask(request)).code

    assert await code(offer(gate, token=b"")) == "missing_token"
    assert await code(offer(gate, token=b"sk-wrong")) == "invalid_token"
    assert await code(offer(gate, token=gate.new_token(is_active=False))) == "token_revoked"
    assert await code(offer(gate, target=b"/v1/other")) == "endpoint_not_allowed"
    strange = gate.request(*OFFER, method=b"PUT", target=TARGET)
    assert await code(strange) == "method_not_allowed"
    assert not gate.openai.has_news()


async def test_origin_rules_hold_for_offers(start_gate: StartGate) -> None:
    gate = await start_gate(
        allowed_endpoints=("/v1/realtime",), allowed_origins=("https://good.test",)
    )
    refused = await gate.ask(offer(gate, b"Origin: https://evil.test"))
    assert refused.code == "origin_not_allowed"


async def test_tunnel_counts_once_against_the_cap(gate: Gate) -> None:
    token = gate.new_token(max_requests=1)
    client, peer, _ = await offered(gate, offer(gate, token=token))
    await peer.send(SWITCH)
    await client.response()
    assert (await gate.ask(offer(gate, token=token))).code == "token_quota_exhausted"


async def test_parameters_that_cannot_be_checked_are_refused(start_gate: StartGate) -> None:
    gate = await start_gate(
        allowed_endpoints=("/v1/realtime",), param_whitelist={"model": ("gpt-4*",)}
    )
    assert (await gate.ask(offer(gate))).code == "param_not_allowed"


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        (b"realtime, openai-insecure-api-key.%b", [b"realtime"]),
        (
            b"realtime,openai-insecure-api-key.%b , openai-project.p",
            [b"realtime, openai-project.p"],
        ),
        (b"openai-insecure-api-key.%b", []),
        (b"OpenAI-Insecure-API-Key.%b, realtime", [b"realtime"]),
        (
            b"a\r\nSec-WebSocket-Protocol: openai-insecure-api-key.%b"
            b"\r\nSec-WebSocket-Protocol: openai-organization.o,  b",
            [b"a", b"openai-organization.o,  b"],
        ),
    ],
)
async def test_token_as_a_sub_protocol_is_taken_out(
    gate: Gate, sent: bytes, passed_on: list[bytes]
) -> None:
    line = b"Sec-WebSocket-Protocol: " + sent % gate.token
    client, peer, head = await offered(gate, offer(gate, line, token=b""))
    assert protocols(head) == passed_on
    assert gate.token not in head
    assert head.count(b"Authorization: Bearer " + UPSTREAM_KEY + b"\r\n") == 1
    await peer.send(SWITCH)
    assert (await client.response()).status == 101


async def test_token_in_a_header_goes_before_one_in_a_sub_protocol(gate: Gate) -> None:
    other = new_token().reveal().encode()
    line = b"Sec-WebSocket-Protocol: openai-insecure-api-key.%b, realtime" % other
    _, _, head = await offered(gate, offer(gate, line))
    assert protocols(head) == [b"realtime"]
    assert other not in head


async def test_token_as_a_sub_protocol_never_leaves_with_a_plain_request(gate: Gate) -> None:
    line = b"Sec-WebSocket-Protocol: openai-insecure-api-key.%b" % gate.token
    client = await gate.connect()
    await client.send(gate.request(line, method=b"GET", target=TARGET))
    assert gate.token not in await (await gate.openai.accept()).head()


async def test_unknown_token_as_a_sub_protocol_is_refused(gate: Gate) -> None:
    token = new_token().reveal().encode()
    line = b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.%b" % token
    response = await gate.ask(offer(gate, line, token=b""))
    assert response.code == "invalid_token"
    assert token not in response.body


async def test_credential_with_a_header_of_its_own_comes_with_the_offer(
    start_gate: StartGate,
) -> None:
    gate = await start_gate(
        allowed_endpoints=("/v1/realtime",), auth=Auth(header="X-Own-Key", scheme="")
    )
    line = b"Sec-WebSocket-Protocol: openai-insecure-api-key.%b" % gate.token
    _, _, head = await offered(gate, offer(gate, line, b"X-Own-Key: mine", token=b""))
    assert head.count(b"X-Own-Key: ") == 1
    assert b"X-Own-Key: " + UPSTREAM_KEY in head


async def test_tunnel_is_recorded_at_its_end(gate: Gate) -> None:
    client, peer = await opened(gate)
    await client.send(b"question")
    await peer.read(8)
    await peer.send(b"answer")
    await client.read(6)
    assert not gate.records.all
    assert gate.gateway.metrics.tunnels == gate.gateway.running == 1
    peer.close()
    assert await client.is_left()
    record = await gate.records.next()
    assert (record.status_code, record.error_code, record.truncated) == (101, "", False)
    assert (record.request_bytes, record.response_bytes) == (8, 6)
    assert record.endpoint == "/v1/realtime"
    assert record.stream
    assert record.duration_ms >= record.ttft_ms >= record.upstream_ms > 0
    assert record.body == b""
    assert gate.gateway.metrics.tunnels == gate.gateway.running == 0
    assert not gate.records.parts


async def test_plans_of_offers_and_of_plain_requests_are_not_mixed_up(gate: Gate) -> None:
    client = await gate.connect()
    plain = gate.request(method=b"GET", target=TARGET)
    for request, has_offer in [(plain, False), (offer(gate), True), (plain, False)]:
        await client.send(request)
        peer = await gate.openai.accept() if not gate.openai.all else gate.openai.all[-1]
        assert (b"Upgrade" in await peer.head()) is has_offer
        await peer.answer()
        await client.response()


async def test_tunnel_that_opens_closes_a_breaker(start_gate: StartGate) -> None:
    breaker = CircuitBreaker(failures=1, cooldown=10)
    gate = await start_gate(allowed_endpoints=("/v1/realtime",), circuit_breaker=breaker)
    client, peer, _ = await offered(gate, offer(gate))
    await peer.answer(status=b"500 Broken")
    assert (await client.response()).status == 500
    assert (await gate.ask(offer(gate))).code == "circuit_open"
    gate.timers.advance(10)
    await client.send(offer(gate))
    await peer.head()
    await peer.send(SWITCH)
    assert (await client.response()).status == 101
    other, _, _ = await offered(gate, offer(gate))
    other.close()
