"""Limits on real sockets: what a client sees of them, and what is given back."""

from __future__ import annotations

import dataclasses

import pytest

from llm_proxy.limits import LimitDefaults, LimitOverride, Limits, RateLimit
from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio

TWO_AN_HOUR = Limits(rate=RateLimit(2, 3600, 2))
BODY = b'{"model": "gpt-4o"}'


async def relay(gate: Gate) -> int:
    _, response = await gate.relay(
        gate.request(body=BODY),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    )
    return response.status


async def test_rate_is_told_in_every_form_that_clients_know(start_gate: StartGate) -> None:
    gate = await start_gate(limits=LimitDefaults(token=TWO_AN_HOUR))
    client = await gate.connect()
    for _ in range(2):
        await client.send(gate.request(body=BODY))
        if not gate.openai.all:
            peer = await gate.openai.accept()
        await peer.request()
        await peer.answer()
        assert (await client.response()).status == 200
    await client.send(gate.request(body=BODY))
    refused = await client.response()
    assert (refused.status, refused.code) == (429, "rate_limited")
    assert refused.header(b"Retry-After") in (b"1799", b"1800")
    assert refused.header(b"RateLimit-Policy") == b'"token";q=2;w=3600'
    assert (refused.header(b"RateLimit") or b"").startswith(b'"token";r=0;t=')
    assert refused.header(b"x-ratelimit-limit-requests") == b"2"
    assert refused.header(b"x-ratelimit-remaining-requests") == b"0"
    assert refused.error["details"]["rate_limit"] == "2/h"


async def test_refused_for_another_reason_is_not_charged(start_gate: StartGate) -> None:
    gate = await start_gate(
        limits=LimitDefaults(token=TWO_AN_HOUR), param_whitelist={"model": ("gpt-4*",)}
    )
    for _ in range(5):
        refused = await gate.ask(gate.request(body=b'{"model": "o1"}'))
        assert refused.code == "param_not_allowed"
    assert [await relay(gate) for _ in range(2)] == [200, 200]


async def test_what_no_upstream_saw_is_given_back(start_gate: StartGate) -> None:
    gate = await start_gate(limits=LimitDefaults(token=TWO_AN_HOUR), base_url="http://127.0.0.1:1")
    for _ in range(5):
        assert (await gate.ask(gate.request(body=BODY))).code == "upstream_unreachable"
    assert gate.gateway.limiter.running == 0


async def test_client_that_leaves_frees_its_slot(start_gate: StartGate) -> None:
    gate = await start_gate(limits=LimitDefaults(project=Limits(max_concurrent=1)))
    client = await gate.connect()
    await client.send(gate.request(body=BODY))
    peer = await gate.openai.accept()
    await peer.request()
    assert (await gate.ask(gate.request(body=BODY))).code == "concurrency_limited"
    client.close()
    assert await peer.is_left()
    assert gate.gateway.limiter.running == 0
    assert await relay(gate) == 200


async def test_own_limit_of_a_token_is_obeyed(start_gate: StartGate) -> None:
    gate = await start_gate()
    (digest,) = gate.grants.grants
    grant = gate.grants.grants[digest]
    gate.grants.grants[digest] = dataclasses.replace(
        grant, token_limits=LimitOverride(rate_limit="1/h")
    )
    assert await relay(gate) == 200
    assert (await gate.ask(gate.request(body=BODY))).code == "rate_limited"
