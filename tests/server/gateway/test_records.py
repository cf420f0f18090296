"""One record for each exchange, refusals included, with what happened in it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from llm_proxy.server.gateway.capture import PART_BYTES

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio

JSON = b"Content-Type: application/json; charset=utf-8"


async def test_fields_of_an_exchange(gate: Gate) -> None:
    started = time.time()
    client = await gate.connect()
    request = gate.request(
        b"X-Request-ID: mine", target=b"/openai/v1/chat/completions?secret=1", body=b'{"a": 1}'
    )
    await client.send(request)
    peer = await gate.openai.accept()
    await peer.request()
    await asyncio.sleep(0.02)
    body = b'{"usage": {}}'
    head = b"HTTP/1.1 201 Made\r\n" + JSON + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    await peer.send(head)
    await client.read_until(b"\r\n\r\n")
    await asyncio.sleep(0.02)
    await peer.send(body)
    await client.read(len(body))
    record = await gate.records.next()
    assert started <= record.timestamp <= time.time()
    assert record.request_id == "mine"
    assert (record.project_id, record.token_id) == ("project-1", "token-1")
    assert (record.api, record.endpoint) == ("openai", "/v1/chat/completions")
    assert (record.method, record.status_code) == ("POST", 201)
    assert 18 <= record.upstream_ms < record.ttft_ms <= record.duration_ms < 60_000  # timers round
    assert record.ttft_ms >= 36
    assert not record.stream
    assert (record.request_bytes, record.response_bytes) == (8, len(body))
    assert (record.truncated, record.error_code) == (False, "")
    assert record.client_ip == "127.0.0.1"
    assert (record.exchange, record.content_encoding, record.body) == (0, "", body)


async def test_fields_of_a_refusal(gate: Gate) -> None:
    answer = await gate.ask(gate.request(target=b"/anthropic/v1/other", body=b"{}"))
    record = await gate.records.next()
    assert (record.api, record.endpoint) == ("anthropic", "/v1/other")
    assert (record.status_code, record.error_code) == (404, "endpoint_not_allowed")
    assert (record.project_id, record.token_id) == ("", "")
    assert (record.upstream_ms, record.ttft_ms) == (0, 0)
    assert record.response_bytes == len(answer.body)
    assert record.duration_ms > 0
    assert record.body == b""


async def test_refused_token_is_named(gate: Gate) -> None:
    token = gate.new_token(is_active=False, token_id="revoked-one")
    await gate.ask(gate.request(body=b"{}", token=token))
    assert (await gate.records.next()).token_id == "revoked-one"


async def test_head_that_is_refused_leaves_a_record(gate: Gate) -> None:
    await gate.ask(b"nonsense\r\n\r\n")
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (400, "invalid_request")
    assert (record.method, record.api, record.endpoint) == ("", "", "")
    await gate.ask(gate.request(target=b"/a/../b", body=b""))
    record = await gate.records.next()
    assert (record.method, record.api, record.endpoint) == ("POST", "", "")


async def test_stream_is_recorded_as_one_with_its_events(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    await client.read_until(b"data: 1\n\n")
    await peer.send(b"data: [DONE]\n\n")
    peer.close()
    assert await client.read_until(b"0\r\n\r\n")
    record = await gate.records.next()
    assert record.stream
    assert record.body == b"data: 1\n\ndata: [DONE]\n\n"
    assert record.response_bytes == len(record.body)


async def test_body_of_another_type_is_not_recorded(gate: Gate) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 5\r\n\r\nsound"
    await gate.relay(gate.request(body=b"{}"), answer)
    record = await gate.records.next()
    assert (record.body, record.response_bytes) == (b"", 5)


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
async def test_long_body_goes_in_parts(gate: Gate, kind: bytes) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    body = bytes(range(256)) * 2000
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: GZIP\r\nContent-Type: " + kind
    await peer.send(head + b"\r\nContent-Length: %d\r\n\r\n" % len(body))
    for start in range(0, len(body), 10_000):
        await peer.send(body[start : start + 10_000])
        await asyncio.sleep(0)
    assert (await client.response()).body == body
    record = await gate.records.next()
    assert len(gate.records.parts) >= 2
    assert {part[0] for part in gate.records.parts} == {record.exchange} == {1}
    assert {part[2:] for part in gate.records.parts} == {("gzip", kind == b"text/event-stream")}
    assert b"".join(part[1] for part in gate.records.parts) + record.body == body
    assert len(record.body) <= PART_BYTES


async def test_nothing_is_recorded_of_the_control_plane(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(method=b"GET", target=b"/manage/projects"))
    peer = await gate.control.accept()
    await peer.request()
    await peer.answer()
    await client.response()
    assert not gate.records.all


async def test_gateway_works_without_a_recorder(start_gate: StartGate) -> None:
    gate = await start_gate(records=False)
    answer = b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\nContent-Length: 2\r\n\r\n{}"
    _, response = await gate.relay(gate.request(body=b"{}"), answer)
    assert response.body == b"{}"
    assert (await gate.ask(gate.request(target=b"/none", body=b""))).status == 404


async def test_exchanges_of_a_kept_connection_have_their_own_records(gate: Gate) -> None:
    client = await gate.connect()
    request = gate.request(body=b"{}")
    await client.send(request)
    peer = await gate.openai.accept()
    for number in range(3):
        await peer.request()
        await peer.answer(b"x" * number, JSON)
        await client.response()
        if number < 2:
            await client.send(request)
    assert [record.body for record in gate.records.all] == [b"", b"x", b"xx"]
    assert len({record.request_id for record in gate.records.all}) == 3
    assert all(record.request_bytes == 2 for record in gate.records.all)
