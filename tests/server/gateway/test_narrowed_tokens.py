"""Tokens that are narrowed by scope and time, as their clients see it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from llm_proxy.grants import Scope
from llm_proxy.server.gateway.api import MAX_CHECKED_BODY

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def body_for(model: str) -> bytes:
    return json.dumps({"model": model}).encode()


async def refused(gate: Gate, request: bytes, *, status: int) -> dict[str, Any]:
    response = await gate.ask(request)
    assert response.status == status
    assert not gate.openai.has_news()
    assert await gate.counted() == 0
    return response.error


@pytest.mark.parametrize(
    ("scope", "rule"),
    [
        (Scope(apis=("anthropic",)), "apis"),
        (Scope(endpoints=("/v1/models", "/v1/chat/*", "/v1/chat/completion")), ""),
        (Scope(endpoints=("/v1/models",)), "endpoints"),
        (Scope(endpoints=("/openai/v1/chat/completions",)), "endpoints"),
        (Scope(methods=("GET",)), "methods"),
        (Scope(methods=("GET", "POST"), networks=("127.0.0.0/8",)), ""),
        (Scope(models=("gpt-4*",)), ""),
    ],
)
async def test_a_request_beyond_the_scope_is_refused_and_not_counted(
    gate: Gate, scope: Scope, rule: str
) -> None:
    token = gate.new_token(scope=scope, max_requests=1)
    request = gate.request(body=body_for("gpt-4"), token=token)
    if rule:
        error = await refused(gate, request, status=403)
        assert (error["code"], error["details"]["rule"]) == ("insufficient_scope", rule)
    else:
        received, response = await gate.relay(request, OK)
        assert response.status == 200
        assert received.endswith(body_for("gpt-4"))


async def test_a_prefix_of_the_api_is_no_part_of_the_endpoint(gate: Gate) -> None:
    token = gate.new_token(scope=Scope(endpoints=("/v1/chat/completions",)))
    request = gate.request(
        target=b"/openai/v1/chat/completions", body=body_for("gpt-4"), token=token
    )
    assert (await gate.relay(request, OK))[1].status == 200


async def test_a_client_from_elsewhere_is_refused(gate: Gate) -> None:
    token = gate.new_token(scope=Scope(networks=("192.0.2.0/24", "unix")))
    error = await refused(gate, gate.request(body=b"{}", token=token), status=403)
    assert error["code"] == "client_not_allowed"
    assert error["details"] == {"rule": "networks", "value": "127.0.0.1"}


@pytest.mark.parametrize("model", ["gpt-4o", "o3"])
async def test_a_model_is_looked_for_in_the_whole_body(gate: Gate, model: str) -> None:
    token = gate.new_token(scope=Scope(models=("gpt-4*",)))
    client = await gate.connect()
    request = gate.request(body=body_for(model), token=token)
    await client.send(request[:-5])
    await client.send(request[-5:])
    if model == "o3":
        response = await client.response()
        assert (response.status, response.code) == (403, "insufficient_scope")
        assert "'o3'; allowed here: gpt-4*." in response.error["message"]
        assert not gate.openai.has_news()
    else:
        peer = await gate.openai.accept()
        assert (await peer.request()).endswith(body_for(model))


async def test_a_request_without_a_body_names_no_model(gate: Gate) -> None:
    token = gate.new_token(scope=Scope(models=("gpt-4*",)))
    request = gate.request(method=b"GET", target=b"/v1/models", token=token)
    assert (await gate.relay(request, OK))[1].status == 200


async def test_a_body_that_is_looked_into_has_a_limit_of_its_own(start_gate: StartGate) -> None:
    gate = await start_gate()
    token = gate.new_token(scope=Scope(models=("gpt-4*",)))
    length = b"Content-Length: %d" % (MAX_CHECKED_BODY + 1)
    error = await refused(gate, gate.request(length, token=token), status=413)
    assert error["code"] == "body_too_large"


async def test_a_token_works_from_its_time_on(gate: Gate) -> None:
    token = gate.new_token(not_before=time.time() + 60)
    error = await refused(gate, gate.request(body=b"{}", token=token), status=401)
    assert error["code"] == "token_not_yet_valid"
    token = gate.new_token(not_before=time.time() - 1)
    assert (await gate.relay(gate.request(body=b"{}", token=token), OK))[1].status == 200


async def test_a_token_that_idled_away_says_so(gate: Gate) -> None:
    token = gate.new_token(idle_timeout=60.0, last_used_at=time.time() - 61)
    error = await refused(gate, gate.request(body=b"{}", token=token), status=401)
    assert error["code"] == "token_expired"
    assert "not used for 1m;" in error["message"]
    token = gate.new_token(idle_timeout=60.0, last_used_at=time.time() - 50)
    assert (await gate.relay(gate.request(body=b"{}", token=token), OK))[1].status == 200


@pytest.mark.parametrize("is_near", [True, False])
async def test_answers_say_when_little_is_left(gate: Gate, is_near: bool) -> None:
    now = time.time()
    token = gate.new_token(expires_at=now + 100, warns_at=now - 1 if is_near else now + 50)
    response = (await gate.relay(gate.request(body=b"{}", token=token), OK))[1]
    assert (response.header(b"LLM-Proxy-Token-Expires") is not None) == is_near
