"""What clients and upstreams see of the circuit breaker, over real sockets."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.providers import CircuitBreaker
from llm_proxy.secrets import Secret

pytestmark = pytest.mark.anyio

FAILURES = 3
COOLDOWN_S = 30.0
LIMITS = CircuitBreaker(failures=FAILURES, cooldown=COOLDOWN_S)


@pytest.fixture
async def gate(start_gate: Any) -> Any:
    return await start_gate(circuit_breaker=LIMITS)


def keys(name: str) -> dict[str, Secret]:
    return {"openai": Secret(f"sk-{name}")}


async def relay(gate: Any, status: bytes = b"200 OK", token: bytes | None = None) -> int:
    """The status that the client gets when the upstream answers with this one."""
    client = await gate.connect()
    await client.send(gate.request(b"Connection: close", body=b"{}", token=token))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.answer(b"{}", b"Connection: close", status=status)
    response = await client.response()
    client.close()
    return int(response.status)


async def trip(gate: Any, token: bytes | None = None) -> None:
    for _ in range(FAILURES):
        assert await relay(gate, b"503 Down", token) == 503


async def test_an_upstream_that_fails_is_left_alone_until_one_probe_succeeds(gate: Any) -> None:
    await trip(gate)
    response = await gate.ask(gate.request(body=b"{}"))
    assert (response.status, response.code) == (503, "circuit_open")
    assert response.header(b"Retry-After") == b"30"
    assert "status 503" in response.error["message"]
    assert not gate.openai.has_news()
    gate.timers.advance(COOLDOWN_S)
    probe = await gate.connect()
    await probe.send(gate.request(b"Connection: close", body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    assert (await gate.ask(gate.request(body=b"{}"))).code == "circuit_open"
    assert not gate.openai.has_news()
    await peer.answer(b"{}", b"Connection: close")
    assert (await probe.response()).status == 200
    for _ in range(FAILURES + 1):
        assert await relay(gate) == 200


async def test_refusals_are_not_charged_and_are_recorded(start_gate: Any) -> None:
    gate = await start_gate(circuit_breaker=LIMITS)
    token = gate.new_token(max_requests=FAILURES)
    await trip(gate, token)
    await trip_record(gate)
    other = gate.new_token(max_requests=1)
    assert (await gate.ask(gate.request(body=b"{}", token=other))).code == "circuit_open"
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (503, "circuit_open")
    gate.timers.advance(COOLDOWN_S)
    assert await relay(gate, token=other) == 200


async def trip_record(gate: Any) -> None:
    for _ in range(FAILURES):
        assert (await gate.records.next()).status_code == 503


async def test_one_projects_failures_are_not_anothers(gate: Any) -> None:
    one = gate.new_token(upstream_keys=keys("one"))
    other = gate.new_token(upstream_keys=keys("other"), project_id="project-2")
    await trip(gate, one)
    assert (await gate.ask(gate.request(body=b"{}", token=one))).code == "circuit_open"
    for _ in range(FAILURES + 1):
        assert await relay(gate, token=other) == 200


async def test_tokens_with_the_same_key_share_the_breaker(gate: Any) -> None:
    one = gate.new_token(upstream_keys=keys("shared"))
    other = gate.new_token(upstream_keys=keys("shared"), project_id="project-2")
    await trip(gate, one)
    assert (await gate.ask(gate.request(body=b"{}", token=other))).code == "circuit_open"


@pytest.mark.parametrize("status", [b"400 Bad", b"401 No", b"403 No", b"404 No", b"429 Slow"])
async def test_what_the_client_did_wrong_never_opens_it(gate: Any, status: bytes) -> None:
    for _ in range(3 * FAILURES):
        assert await relay(gate, status) == int(status[:3])


async def test_clients_that_hang_up_never_open_it(gate: Any) -> None:
    for _ in range(3 * FAILURES):
        client = await gate.connect()
        await client.send(gate.request(body=b"{}"))
        peer = await gate.openai.accept()
        await peer.request()
        client.close()
        assert await peer.is_left()
    assert await relay(gate) == 200


async def test_a_probe_whose_client_hangs_up_decides_nothing(gate: Any) -> None:
    await trip(gate)
    gate.timers.advance(COOLDOWN_S)
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    client.close()
    assert await peer.is_left()
    assert await relay(gate) == 200


async def test_broken_answers_open_it(gate: Any) -> None:
    for _ in range(FAILURES):
        client = await gate.connect()
        await client.send(gate.request(body=b"{}"))
        peer = await gate.openai.accept()
        await peer.request()
        await peer.send(b"I speak no HTTP\r\n\r\n")
        assert (await client.response()).code == "upstream_broken"
    assert (await gate.ask(gate.request(body=b"{}"))).code == "circuit_open"


async def test_answers_that_never_come_open_it(gate: Any) -> None:
    for _ in range(FAILURES):
        client = await gate.connect()
        await client.send(gate.request(body=b"{}"))
        peer = await gate.openai.accept()
        await peer.request()
        gate.timers.advance(1000)
        assert (await client.response()).code == "upstream_timeout"
    assert (await gate.ask(gate.request(body=b"{}"))).code == "circuit_open"


async def test_an_upstream_that_is_not_there_opens_it(gate: Any) -> None:
    for server in gate.openai.servers:
        server.close()
    for _ in range(FAILURES):
        response = await gate.ask(gate.request(body=b"{}"))
        assert (response.status, response.code) == (502, "upstream_unreachable")
    response = await gate.ask(gate.request(body=b"{}"))
    assert response.code == "circuit_open"
    assert "refused the connection" in response.error["message"]


async def test_streams_that_break_off_count(gate: Any) -> None:
    """A head that came starts the count again, so only the break of the last one is counted."""
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    peer.close()
    await client.read_to_end()
    assert gate.upstreams[0].breakers[0].failures == 1


async def test_it_can_be_switched_off(start_gate: Any) -> None:
    gate = await start_gate(circuit_breaker=CircuitBreaker(failures=0))
    for _ in range(20):
        assert await relay(gate, b"500 Down") == 500
