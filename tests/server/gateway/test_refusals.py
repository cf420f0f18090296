"""Refusals: their order, their answers, and what they leave untouched."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import anthropic
import openai
import pytest

from llm_proxy.errors import REFUSALS, StoreError
from llm_proxy.secrets import Secret, new_token

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio


async def test_order_is_that_of_the_contract(start_gate: StartGate) -> None:
    """A request with every fault; taking away the first one shows the next."""
    gate = await start_gate(
        allowed_origins=("https://good.test",),
        require_origin=True,
        param_whitelist={"model": ("gpt-4*",)},
        max_request_size=1000,
    )
    usable = gate.new_token(max_requests=0)
    tokens = {
        "invalid": new_token().reveal().encode(),
        "revoked": gate.new_token(is_active=False, expires_at=1.0, project_is_active=False),
        "expired": gate.new_token(expires_at=time.time(), project_is_active=False),
        "inactive": gate.new_token(project_is_active=False, upstream_keys={}),
        "keyless": gate.new_token(upstream_keys={}),
    }
    good = [b"Origin: https://good.test"]
    bad = b'{"model": "o3"}'
    big = bad + b" " * 1000
    fine = b'{"model": "gpt-4o"}'
    target = b"/v1/chat/completions"
    cases: list[tuple[int, str, bytes, bytes, list[bytes], bytes, bytes]] = [
        (400, "invalid_request", b"PATCH", b"/none/../x", [], b"", big),
        (405, "method_not_allowed", b"PATCH", b"/none", [], b"", big),
        (404, "endpoint_not_allowed", b"POST", b"/none", [], b"", big),
        (400, "origin_required", b"POST", target, [], b"", big),
        (403, "origin_not_allowed", b"POST", target, [b"Origin: https://bad.test"], b"", big),
        (401, "missing_token", b"POST", target, good, b"", big),
        (401, "invalid_token", b"POST", target, good, b"sk-no-token-of-ours", big),
        (401, "invalid_token", b"POST", target, good, tokens["invalid"], big),
        (401, "token_revoked", b"POST", target, good, tokens["revoked"], big),
        (401, "token_expired", b"POST", target, good, tokens["expired"], big),
        (403, "project_inactive", b"POST", target, good, tokens["inactive"], big),
        (403, "no_upstream_key", b"POST", target, good, tokens["keyless"], big),
        (413, "body_too_large", b"POST", target, good, usable, big),
        (400, "param_not_allowed", b"POST", target, good, usable, bad),
        (429, "token_quota_exhausted", b"POST", target, good, usable, fine),
    ]
    client = await gate.connect()  # the connection survives all of them
    for status, code, method, path, lines, token, body in cases:
        request = gate.request(*lines, method=method, target=path, body=body, token=token)
        await client.send(request)
        response = await client.response()
        assert (response.status, response.code) == (status, code)
        assert response.header(b"Connection") == b"keep-alive"
        record = await gate.records.next()
        assert (record.status_code, record.error_code) == (status, code)
        assert REFUSALS[code] == (status, response.error["type"])
    assert not gate.openai.has_news()
    assert await gate.counted() == 0  # what is refused is never counted


async def test_refusal_says_what_and_what_to_do(gate: Gate) -> None:
    response = await gate.ask(gate.request(method=b"PUT", body=b"{}"))
    assert response.header(b"Allow") == b"DELETE, GET, HEAD, POST"
    assert response.error == {
        "type": "invalid_request_error",
        "code": "method_not_allowed",
        "message": "PUT is not allowed for the api 'openai'; allowed: DELETE, GET, HEAD, POST.",
        "details": {},
    }
    response = await gate.ask(gate.request(target=b"/v1/messages", body=b"{}"))
    assert "Did you mean /anthropic/v1/messages?" in response.error["message"]
    response = await gate.ask(gate.request(target=b"/v1/nothing", body=b"{}"))
    assert "allowed_endpoints" in response.error["message"]
    token = gate.new_token(expires_at=1_700_000_000.0)
    response = await gate.ask(gate.request(body=b"{}", token=token))
    assert response.error["details"] == {"expires_at": "2023-11-14T22:13:20Z"}
    token = gate.new_token(upstream_keys={"anthropic": Secret("sk-ant")})
    response = await gate.ask(gate.request(body=b"{}", token=token))
    assert "no key for the api 'openai'" in response.error["message"]
    token = gate.new_token(max_requests=3, used=3)
    response = await gate.ask(gate.request(body=b"{}", token=token))
    assert response.error["details"] == {"max_requests": 3}


async def test_refusal_has_the_headers_of_every_answer(gate: Gate) -> None:
    response = await gate.ask(gate.request(target=b"/none", body=b"{}"))
    identity = response.header(b"LLM-Proxy-Request-ID")
    assert identity is not None
    assert response.header(b"X-Request-ID") == identity
    assert response.header(b"Via") == b"1.1 llm-proxy"
    assert response.header(b"Content-Type") == b"application/json"
    assert response.header(b"Date") is not None
    assert (await gate.records.next()).request_id == identity.decode()


async def test_refused_head_request_has_no_body(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(method=b"HEAD", target=b"/none"))
    response = await client.response(method="HEAD")
    assert response.status == 404
    assert int(response.header(b"Content-Length") or b"0") > 0
    await client.send(gate.request(target=b"/none", body=b""))
    assert (await client.response()).status == 404


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"abc-123_X.y:z/+=@", True),
        (b"x" * 128, True),
        (b"x" * 129, False),
        (b"two words", False),
        (b'quote"', False),
        (b"caf\xe9", False),
        (b"", False),
    ],
)
async def test_sane_request_id_of_the_client_is_kept(gate: Gate, sent: bytes, kept: bool) -> None:
    response = await gate.ask(gate.request(b"X-Request-ID: " + sent, target=b"/n", body=b""))
    identity = response.header(b"LLM-Proxy-Request-ID") or b""
    assert (identity == sent) is kept
    if not kept:
        assert len(identity) == 36
        assert identity[14:15] == b"7"


async def test_request_id_of_the_upstream_passes_unchanged(gate: Gate) -> None:
    answer = b"HTTP/1.1 200 OK\r\nx-request-id: req_upstream\r\nContent-Length: 0\r\n\r\n"
    received, response = await gate.relay(gate.request(b"X-Request-ID: mine", body=b"{}"), answer)
    assert b"\r\nX-Request-ID: mine\r\n" in received
    assert response.all(b"X-Request-ID") == [b"req_upstream"]
    assert response.header(b"LLM-Proxy-Request-ID") == b"mine"


async def test_without_an_upstreams_request_id_ours_is_given(gate: Gate) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    received, response = await gate.relay(gate.request(body=b"{}"), answer)
    assert b"equest-ID" not in received
    assert response.header(b"X-Request-ID") == response.header(b"LLM-Proxy-Request-ID")


async def test_keep_alive_survives_a_refusal_with_its_body_still_coming(gate: Gate) -> None:
    client = await gate.connect()
    for line, body in (
        (b"Content-Length: 200000", b"x" * 200_000),
        (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n" * 1000 + b"0\r\n\r\n"),
    ):
        await client.send(gate.request(line, target=b"/none") + body[:10])
        assert (await client.response()).header(b"Connection") == b"keep-alive"
        await client.send(body[10:-1])
        await client.send(body[-1:] + gate.request(target=b"/other", body=b""))
        assert "/other" in (await client.response()).error["message"]


@pytest.mark.parametrize("line", [b"Content-Length: 50000000", b"Transfer-Encoding: chunked"])
async def test_client_gets_the_answer_to_a_big_refused_upload(gate: Gate, line: bytes) -> None:
    """Not a reset: the connection closes in stages (RFC 9112 section 9.6)."""
    client = await gate.connect()
    await client.send(gate.request(line, target=b"/none"))
    piece = b"x" * 65534 if b"Length" in line else b"fff8\r\n" + b"x" * 0xFFF8 + b"\r\n"
    for _ in range(100):
        client.writer.write(piece)
        await asyncio.sleep(0)
    response = await client.response()
    assert response.code == "endpoint_not_allowed"
    assert await client.is_left()
    gate.timers.advance(3)  # and whoever goes on sending is cut off
    async with asyncio.timeout(30):
        while gate.connections:
            await asyncio.sleep(0)


async def test_declared_length_over_the_limit_is_413(start_gate: StartGate) -> None:
    gate = await start_gate(max_request_size=1000)
    response = await gate.ask(gate.request(b"Content-Length: 1001"))
    assert (response.status, response.code) == (413, "body_too_large")
    assert response.error["details"] == {"limit_bytes": 1000}
    assert not gate.openai.has_news()
    received, response = await gate.relay(
        gate.request(body=b"x" * 1000), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    assert response.status == 200


async def test_chunked_body_over_the_limit_is_413_when_it_gets_there(start_gate: StartGate) -> None:
    gate = await start_gate(max_request_size=1000)
    client = await gate.connect()
    request = gate.request(b"Transfer-Encoding: chunked")
    await client.send(request + b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    peer = await gate.openai.accept()
    await peer.head()
    await peer.read_until(b"x\r\n")
    await client.send(b"1\r\nx\r\n0\r\n\r\n")
    response = await client.response()
    assert (response.status, response.code) == (413, "body_too_large")
    assert await peer.is_left()
    assert await client.is_left()


@pytest.mark.parametrize("is_known", [True, False])
async def test_body_over_the_limit_is_refused_once_its_token_is_loaded(
    start_gate: StartGate, is_known: bool
) -> None:
    gate = await start_gate(max_request_size=100_000)
    gate.grants.may_load.clear()
    token = gate.token if is_known else new_token().reveal().encode()
    client = await gate.connect()
    await client.send(gate.request(b"Transfer-Encoding: chunked", token=token))
    await gate.grants.is_asked.wait()
    await client.send(b"186a1\r\n" + b"x" * 100_001 + b"\r\n" + b"1\r\nx\r\n" * 50_000)
    gate.grants.may_load.set()
    response = await client.response()
    expected = (413, "body_too_large") if is_known else (401, "invalid_token")
    assert (response.status, response.code) == expected
    if is_known:
        assert await client.is_left()  # which needs the rest of the upload to be read


async def test_store_that_fails_is_503(gate: Gate) -> None:
    gate.grants.failure = StoreError("the disk is gone")
    response = await gate.ask(gate.request(body=b"{}"))
    assert (response.status, response.code) == (503, "store_unavailable")
    assert response.header(b"Retry-After") == b"1"
    assert "disk" not in response.error["message"]
    gate.grants.failure = None
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    await (await gate.openai.accept()).request()


async def test_draining_gateway_closes_after_its_answers(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    gate.gateway.is_draining = True
    await peer.answer()
    assert (await client.response()).header(b"Connection") == b"close"
    assert await client.is_left()
    response = await gate.ask(gate.request(target=b"/none", body=b""))
    assert response.header(b"Connection") == b"close"


async def test_sdks_raise_their_own_exceptions(start_gate: StartGate) -> None:
    gate = await start_gate(base_url="http://upstream.invalid", param_whitelist={"model": ("a",)})
    spent = gate.new_token(max_requests=0).decode()
    keyless = gate.new_token(upstream_keys={}).decode()
    cases = [
        ("/none", gate.token.decode(), "a", openai.NotFoundError, "endpoint_not_allowed"),
        ("/v1", "sk-nonsense", "a", openai.AuthenticationError, "invalid_token"),
        ("/v1", keyless, "a", openai.PermissionDeniedError, "no_upstream_key"),
        ("/v1", gate.token.decode(), "b", openai.BadRequestError, "param_not_allowed"),
        ("/v1", spent, "a", openai.RateLimitError, "token_quota_exhausted"),
        ("/v1", gate.token.decode(), "a", openai.InternalServerError, "upstream_unreachable"),
    ]
    for path, key, model, kind, code in cases:
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{gate.port}{path}", api_key=key, max_retries=0
        ) as sdk:
            with pytest.raises(kind) as caught:
                await sdk.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "hi"}]
                )
        assert isinstance(caught.value, openai.APIStatusError)
        assert caught.value.code == code
        assert caught.value.request_id == gate.records.all[-1].request_id


async def test_anthropic_sdk_raises_its_own_exceptions(gate: Gate) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=f"http://127.0.0.1:{gate.port}/anthropic", api_key="sk-nonsense", max_retries=0
    ) as sdk:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await sdk.messages.create(
                model="some-model", max_tokens=1, messages=[{"role": "user", "content": "hi"}]
            )
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["code"] == "invalid_token"
