"""What becomes of a request before anything is sent to an upstream for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from llm_proxy.grants import Scope

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio

SSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\n"
)


async def test_client_that_leaves_while_it_waits_for_a_permit_costs_none(gate: Gate) -> None:
    token = gate.new_token(max_requests=1, token_id="t")
    gate.leases.may_go_on.clear()
    client = await gate.connect()
    await client.send(gate.request(body=b"{}", token=token))
    await gate.leases.is_asked.wait()
    client.close()
    while gate.connections:
        await asyncio.sleep(0)
    gate.leases.may_go_on.set()
    received, response = await gate.relay(
        gate.request(body=b"{}", token=token), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    assert received
    assert response.status == 200
    assert await gate.counted() == 1


async def test_body_that_comes_while_a_permit_is_fetched_is_kept(gate: Gate) -> None:
    gate.leases.may_go_on.clear()
    client = await gate.connect()
    request = gate.request(body=b"0123456789")
    await client.send(request[:-10])
    await gate.leases.is_asked.wait()
    for byte in request[-10:]:
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    gate.leases.may_go_on.set()
    assert (await (await gate.openai.accept()).request()).endswith(b"0123456789")


async def test_scope_narrows_endpoints_methods_apis_and_networks(gate: Gate) -> None:
    refused = [
        (Scope(endpoints=("/v1/models",)), "insufficient_scope", "endpoints"),
        (Scope(methods=("GET",)), "insufficient_scope", "methods"),
        (Scope(apis=("anthropic",)), "insufficient_scope", "apis"),
        (Scope(networks=("192.0.2.0/24",)), "client_not_allowed", "networks"),
    ]
    for scope, code, rule in refused:
        token = gate.new_token(scope=scope)
        response = await gate.ask(gate.request(body=b"{}", token=token))
        assert (response.status, response.code) == (403, code)
        assert response.error["details"]["rule"] == rule
    assert await gate.counted() == 0
    wide = Scope(
        apis=("openai",),
        endpoints=("/v1/chat/*",),
        methods=("POST",),
        networks=("127.0.0.0/8",),
    )
    client = await gate.connect()
    await client.send(gate.request(body=b"{}", token=gate.new_token(scope=wide)))
    assert await (await gate.openai.accept()).request()


async def test_scope_narrows_models_by_the_whole_body(gate: Gate) -> None:
    token = gate.new_token(scope=Scope(models=("gpt-4*",)))
    response = await gate.ask(gate.request(body=b'{"model": "o3"}', token=token))
    assert (response.status, response.code) == (403, "insufficient_scope")
    client = await gate.connect()
    request = gate.request(body=b'{"model": "gpt-4o"}', token=token)
    await client.send(request[:-5])
    await client.send(request[-5:])
    assert (await (await gate.openai.accept()).request()).endswith(b'{"model": "gpt-4o"}')


async def test_answer_says_that_the_token_expires_soon(gate: Gate) -> None:
    now = time.time()
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    soon = gate.new_token(expires_at=now + 60, warns_at=now - 1)
    _, response = await gate.relay(gate.request(body=b"{}", token=soon), answer)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 60)).encode()
    assert response.header(b"LLM-Proxy-Token-Expires") == at
    later = gate.new_token(expires_at=now + 600, warns_at=now + 540)
    _, response = await gate.relay(gate.request(body=b"{}", token=later), answer)
    assert response.header(b"LLM-Proxy-Token-Expires") is None


async def test_token_does_not_work_before_its_time(gate: Gate) -> None:
    token = gate.new_token(not_before=time.time() + 60)
    response = await gate.ask(gate.request(body=b"{}", token=token))
    assert (response.status, response.code) == (401, "token_not_yet_valid")


async def test_unused_token_is_looked_up_anew_and_then_refused(gate: Gate) -> None:
    token = gate.new_token(idle_timeout=10.0, last_used_at=time.time() - 20)
    response = await gate.ask(gate.request(body=b"{}", token=token))
    assert (response.status, response.code) == (401, "token_expired")


@pytest.mark.parametrize("kind", ["token", "project"])
async def test_running_stream_of_a_revoked_token_ends_with_an_error_event(
    gate: Gate, kind: str
) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(SSE)
    await client.read_until(b"data: 1\n\n\r\n")
    (connection,) = gate.connections
    connection.revoke(kind, f"{kind}-2")
    connection.revoke(kind, f"{kind}-1")
    assert b"token_revoked" in await client.read_to_end()
    assert await peer.is_left()
    record = await gate.records.next()
    assert (record.error_code, record.truncated) == ("token_revoked", True)


async def test_request_without_an_answer_yet_is_refused_when_its_token_is_cut(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    (connection,) = gate.connections
    connection.revoke("token", "token-1")
    response = await client.response()
    assert (response.status, response.code) == (401, "token_revoked")
    connection.revoke("token", "token-1")  # nothing runs any more


async def test_known_token_goes_on_without_the_store_and_others_get_503(
    start_gate: StartGate,
) -> None:
    gate = await start_gate()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    await gate.relay(gate.request(body=b"{}"), answer)
    gate.tokens.store_is_lost(3600)
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    (peer,) = gate.openai.all
    await peer.request()
    await peer.send(answer)
    assert (await client.response()).status == 200
    other = gate.new_token()
    response = await gate.ask(gate.request(body=b"{}", token=other))
    assert (response.status, response.code) == (503, "store_unavailable")
    gate.tokens.store_is_back()
    client = await gate.connect()
    await client.send(gate.request(body=b"{}", token=other))
    await peer.request()


async def test_request_woken_for_one_wait_is_not_admitted_by_another(gate: Gate) -> None:
    """Whoever is told twice must not be admitted twice."""
    gate.leases.may_go_on.clear()
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    await gate.leases.is_asked.wait()
    (connection,) = gate.connections
    exchange = connection._exchange
    assert exchange is not None
    exchange._limits_come()  # of an earlier wait
    gate.leases.may_go_on.set()
    peer = await gate.openai.accept()
    await peer.request()
    exchange._limits_come()
    exchange._permits_come(None)
    await peer.answer()
    assert (await client.response()).status == 200
    assert not gate.openai.has_news()
    assert await gate.counted() == 1
