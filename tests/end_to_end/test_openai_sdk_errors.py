"""What goes wrong arrives as the OpenAI SDK's own exceptions, with our code and request id."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from llm_proxy.benchmark.mock_request import ReceivedRequest
from llm_proxy.manage.client import ManagementClient
from llm_proxy.manage.objects import NewToken
from tests.end_to_end.conftest import LARGEST_BODY, UPSTREAM_KEY
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.waiting import eventually

pytestmark = pytest.mark.anyio

NewTokens = Callable[..., NewToken]


@pytest.fixture
def client(server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="to be chosen", max_retries=0) as client:
        yield client


def ask(client: OpenAI, key: str, **options: Any) -> object:
    question: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    return client.with_options(api_key=key).chat.completions.create(**{**question, **options})


def check(
    error: openai.APIStatusError, *, status: int, code: str | None, is_ours: bool = True
) -> None:
    assert error.status_code == status
    assert error.code == code
    assert error.request_id == error.response.headers["x-request-id"]
    if is_ours:
        assert error.request_id == error.response.headers["llm-proxy-request-id"]
        assert isinstance(error.body, dict)
        assert len(error.body["message"]) > 20
        assert str(error.body["message"]) in error.message


@pytest.mark.parametrize("key", ["sk-nonsense", "sk-6pnOcyXV1bBggYkxlw67gwisYJtZL4b0"])
def test_wrong_token(client: OpenAI, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        ask(client, key)
    check(raised.value, status=401, code="invalid_token")
    assert key not in str(raised.value.response.text)


async def test_wrong_token_asynchronously(server: ServerProcess) -> None:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-no", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.models.list()
    check(raised.value, status=401, code="invalid_token")


def test_revoked_token(client: OpenAI, new_token: NewTokens, manage: ManagementClient) -> None:
    made = new_token()
    ask(client, made.token)
    manage.revoke_token(made.id)
    with pytest.raises(openai.AuthenticationError) as raised:
        ask(client, made.token)
    check(raised.value, status=401, code="token_revoked")


def test_expired_token(client: OpenAI, new_token: NewTokens, manage: ManagementClient) -> None:
    made = new_token()
    manage.update_token(made.id, {"expires_at": "2020-01-01T00:00:00Z"})
    with pytest.raises(openai.AuthenticationError, match="2020-01-01T00:00:00Z") as raised:
        ask(client, made.token)
    check(raised.value, status=401, code="token_expired")


def test_deactivated_project_and_missing_key(client: OpenAI, manage: ManagementClient) -> None:
    keys = {"anthropic": UPSTREAM_KEY.format(api="anthropic")}
    project = manage.create_project({"name": "no openai key", "api_keys": keys})
    made = manage.create_token({"project_id": project.id, "duration_minutes": 60})
    with pytest.raises(openai.PermissionDeniedError) as raised:
        ask(client, made.token)
    check(raised.value, status=403, code="no_upstream_key")
    manage.update_project(project.id, {"is_active": False})
    with pytest.raises(openai.PermissionDeniedError) as raised:
        ask(client, made.token)
    check(raised.value, status=403, code="project_inactive")


def test_endpoint_that_is_not_allowed(server: ServerProcess, token: str) -> None:
    with (
        OpenAI(base_url=f"{server.url}/v2", api_key=token, max_retries=0) as client,
        pytest.raises(openai.NotFoundError) as raised,
    ):
        client.models.list()
    check(raised.value, status=404, code="endpoint_not_allowed")


def test_model_that_the_upstream_does_not_have(client: OpenAI, token: str) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        ask(client, token, model="no-such-model")
    check(raised.value, status=404, code="model_not_found", is_ours=False)


def test_method_that_is_not_allowed(client: OpenAI, token: str) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        client.with_options(api_key=token).patch("/models", cast_to=object)
    check(raised.value, status=405, code="method_not_allowed")
    assert raised.value.response.headers["allow"] == "DELETE, GET, POST"


def test_exhausted_token(client: OpenAI, new_token: NewTokens) -> None:
    made = new_token(max_requests=1)
    ask(client, made.token)
    with pytest.raises(openai.RateLimitError) as raised:
        ask(client, made.token)
    check(raised.value, status=429, code="token_quota_exhausted")
    assert "retry-after" not in raised.value.response.headers  # waiting doesn't help


def test_rate_limit_of_the_upstream_keeps_its_retry_after(client: OpenAI, token: str) -> None:
    headers = {"X-Mock-Status": "429", "X-Mock-Retry-After": "3"}
    with pytest.raises(openai.RateLimitError) as raised:
        ask(client, token, extra_headers=headers)
    check(raised.value, status=429, code="rate_limit_exceeded", is_ours=False)
    assert raised.value.response.headers["retry-after"] == "3"
    assert raised.value.response.headers["x-ratelimit-limit-requests"] == "10000"


def test_parameter_that_is_not_allowed(server: ServerProcess, token: str) -> None:
    with OpenAI(base_url=f"{server.url}/strict/v1", api_key=token, max_retries=0) as client:
        ask(client, token)
        with pytest.raises(openai.BadRequestError) as raised:
            ask(client, token, model="o3")
    check(raised.value, status=400, code="param_not_allowed")


def test_body_that_is_too_large(client: OpenAI, token: str) -> None:
    files = client.with_options(api_key=token).files
    with pytest.raises(openai.APIStatusError) as raised:
        files.create(file=("big", bytes(4 * LARGEST_BODY)), purpose="user_data")
    check(raised.value, status=413, code="body_too_large")


def test_upstream_that_is_not_there(server: ServerProcess, token: str) -> None:
    with (
        OpenAI(base_url=f"{server.url}/gone/v1", api_key=token, max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as raised,
    ):
        client.models.list()
    check(raised.value, status=502, code="upstream_unreachable")


def test_upstream_that_closes_instead_of_answering(client: OpenAI, token: str) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        ask(client, token, extra_headers={"X-Mock-Cut": "head"})
    check(raised.value, status=502, code="upstream_broken")


def test_upstream_that_is_too_slow(server: ServerProcess, token: str) -> None:
    with (
        OpenAI(base_url=f"{server.url}/impatient/v1", api_key=token, max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as raised,
    ):
        ask(client, token, extra_headers={"X-Mock-Delay": "60s"})
    check(raised.value, status=504, code="upstream_timeout")


def test_upstream_whose_connections_are_all_in_use(
    server: ServerProcess, token: str, mock: MockThread
) -> None:
    with OpenAI(base_url=f"{server.url}/narrow/v1", api_key=token, max_retries=0) as client:
        slow = {"X-Mock-Delay": "900ms"}
        holding = threading.Thread(target=lambda: ask(client, token, extra_headers=slow))
        holding.start()
        eventually(lambda: any(_is_holding(request) for request in mock.requests))
        with pytest.raises(openai.InternalServerError) as raised:
            ask(client, token)
        holding.join(10)
    check(raised.value, status=503, code="overloaded")


def _is_holding(request: ReceivedRequest) -> bool:
    return any(value == b"900ms" for _, value in request.headers)


@pytest.mark.parametrize("status", [500, 501, 503, 529])
def test_failure_of_the_upstream_is_passed_on(client: OpenAI, token: str, status: int) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        ask(client, token, extra_headers={"X-Mock-Status": str(status)})
    check(raised.value, status=status, code=None, is_ours=False)


def test_stream_that_is_cut_raises(client: OpenAI, token: str) -> None:
    stream: Any = ask(client, token, stream=True, extra_headers={"X-Mock-Cut": "3"})
    chunks = []
    with pytest.raises(openai.APIError, match="closed the connection") as raised:
        chunks += list(stream)
    assert raised.value.code == "upstream_broken"


async def test_stream_that_is_cut_raises_asynchronously(server: ServerProcess, token: str) -> None:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            extra_headers={"X-Mock-Cut": "3"},
        )
        with pytest.raises(openai.APIError, match="closed the connection"):
            async for _ in stream:
                pass


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_compressed_stream_that_is_cut_raises(client: OpenAI, token: str, encoding: str) -> None:
    """No event can be put into a compressed body, so the connection itself is broken off."""
    headers = {"X-Mock-Cut": "3", "X-Mock-Encoding": encoding}
    stream: Any = ask(client, token, stream=True, extra_headers=headers)
    with pytest.raises(openai.APIConnectionError):
        list(stream)


def test_plain_answer_that_is_cut_raises(client: OpenAI, token: str) -> None:
    with pytest.raises(openai.APIConnectionError):
        ask(client, token, extra_headers={"X-Mock-Cut": "20"})
