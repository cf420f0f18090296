"""The official Anthropic SDK through a real server; only its base URL and its key are ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from llm_proxy.manage.client import ManagementClient
from llm_proxy.manage.objects import NewToken
from tests.end_to_end.conftest import LARGEST_BODY
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.server_process import ServerProcess

pytestmark = pytest.mark.anyio

MODEL = "claude-sonnet-5"
HELLO = 'You said: "Hello".'
QUESTION: Any = {
    "model": MODEL,
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}],
}


@pytest.fixture
def client(server: ServerProcess, token: str) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=f"{server.url}/anthropic",
        api_key=token,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
async def async_client(server: ServerProcess, token: str) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        base_url=f"{server.url}/anthropic",
        api_key=token,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


def test_message(client: Anthropic, mock: MockThread, token: str) -> None:
    message = client.messages.create(**QUESTION)
    assert message.content[0].text.startswith(HELLO)
    assert message.stop_reason == "end_turn"
    received = mock.requests[-1]
    sent = {name.lower(): value for name, value in received.headers}
    assert received.target == b"/v1/messages"  # the prefix is gone
    assert sent[b"x-api-key"] == b"sk-upstream-anthropic-0123456789abcdef"
    assert all(token.encode() not in value for value in sent.values())


def test_message_stream(client: Anthropic) -> None:
    with client.messages.stream(**QUESTION) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text.startswith(HELLO)
    assert message.usage.output_tokens == len(text.split())


async def test_message_and_stream_say_the_same_asynchronously(async_client: AsyncAnthropic) -> None:
    plain = await async_client.messages.create(**QUESTION)
    async with async_client.messages.stream(**QUESTION) as stream:
        text = "".join([piece async for piece in stream.text_stream])
    assert plain.content[0].text == text


async def test_raw_events_asynchronously(async_client: AsyncAnthropic) -> None:
    stream = await async_client.messages.create(**QUESTION, stream=True)
    kinds = [event.type async for event in stream]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


def test_tokens_are_counted(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=QUESTION["messages"])
    assert counted.input_tokens == 1


def test_models(client: Anthropic) -> None:
    names = [model.id for model in client.models.list()]
    assert MODEL in names
    assert client.models.retrieve(MODEL).type == "model"


def test_bearer_credential_of_the_sdk(server: ServerProcess, token: str) -> None:
    with Anthropic(base_url=f"{server.url}/anthropic", auth_token=token, max_retries=0) as client:
        assert client.messages.create(**QUESTION).content[0].text.startswith(HELLO)


# What goes wrong arrives as the SDK's own exceptions, with our code and request id.


def check(error: anthropic.APIStatusError, *, status: int, code: str, kind: str) -> None:
    assert error.status_code == status
    assert error.type == kind
    assert isinstance(error.body, dict)
    assert error.body["error"]["code"] == code
    assert error.body["request_id"] == error.response.headers["llm-proxy-request-id"]
    assert error.body["request_id"] in error.message


def test_wrong_token(client: Anthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError) as raised:
        client.with_options(api_key="sk-ant-nonsense").messages.create(**QUESTION)
    check(raised.value, status=401, code="invalid_token", kind="authentication_error")


async def test_revoked_and_expired_tokens_asynchronously(
    async_client: AsyncAnthropic, new_token: Callable[..., NewToken], manage: ManagementClient
) -> None:
    revoked, expired = new_token(), new_token()
    manage.revoke_token(revoked.id)
    manage.update_token(expired.id, {"expires_at": "2020-01-01T00:00:00Z"})
    for made, code in ((revoked, "token_revoked"), (expired, "token_expired")):
        with pytest.raises(anthropic.AuthenticationError) as raised:
            await async_client.with_options(api_key=made.token).messages.create(**QUESTION)
        check(raised.value, status=401, code=code, kind="authentication_error")


def test_project_without_a_key_for_this_api(client: Anthropic, manage: ManagementClient) -> None:
    project = manage.create_project({"name": "openai alone", "api_key": "sk-openai-0123456789"})
    made = manage.create_token({"project_id": project.id, "duration_minutes": 60})
    with pytest.raises(anthropic.PermissionDeniedError) as raised:
        client.with_options(api_key=made.token).messages.create(**QUESTION)
    check(raised.value, status=403, code="no_upstream_key", kind="permission_error")


def test_endpoint_that_is_not_allowed(client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as raised:
        client.post("/v2/messages", cast_to=object)
    check(raised.value, status=404, code="endpoint_not_allowed", kind="not_found_error")


def test_exhausted_token(client: Anthropic, new_token: Callable[..., NewToken]) -> None:
    narrow = client.with_options(api_key=new_token(max_requests=1).token)
    narrow.messages.create(**QUESTION)
    with pytest.raises(anthropic.RateLimitError) as raised:
        narrow.messages.create(**QUESTION)
    check(raised.value, status=429, code="token_quota_exhausted", kind="rate_limit_error")


def test_body_that_is_too_large(client: Anthropic) -> None:
    huge = {**QUESTION, "system": "x" * LARGEST_BODY}
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.create(**huge)
    check(raised.value, status=413, code="body_too_large", kind="request_too_large")


@pytest.mark.parametrize(
    ("prefix", "headers", "status", "code", "kind"),
    [
        ("gone", {}, 502, "upstream_unreachable", "api_error"),
        ("anthropic", {"X-Mock-Cut": "head"}, 502, "upstream_broken", "api_error"),
        ("impatient", {"X-Mock-Delay": "60s"}, 504, "upstream_timeout", "timeout_error"),
    ],
)
def test_upstream_that_fails(
    server: ServerProcess,
    token: str,
    *,
    prefix: str,
    headers: dict[str, str],
    status: int,
    code: str,
    kind: str,
) -> None:
    with (
        Anthropic(base_url=f"{server.url}/{prefix}", api_key=token, max_retries=0) as client,
        pytest.raises(anthropic.InternalServerError) as raised,
    ):
        client.messages.create(**QUESTION, extra_headers=headers)
    check(raised.value, status=status, code=code, kind=kind)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (403, anthropic.PermissionDeniedError),
        (429, anthropic.RateLimitError),
        (529, anthropic.InternalServerError),
    ],
)
def test_errors_of_the_upstream_are_passed_on(
    client: Anthropic, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    headers = {"X-Mock-Status": str(status), "X-Mock-Retry-After": "7"}
    with pytest.raises(kind) as raised:
        client.messages.create(**QUESTION, extra_headers=headers)
    assert raised.value.status_code == status
    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.request_id == raised.value.response.headers["request-id"]
    assert str(raised.value.request_id).startswith("req_")  # the upstream's own


def test_stream_that_is_cut_raises(client: Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIError, match="closed the connection"),
        client.messages.stream(**QUESTION, extra_headers={"X-Mock-Cut": "4"}) as stream,
    ):
        list(stream)


async def test_stream_that_is_cut_raises_asynchronously(async_client: AsyncAnthropic) -> None:
    stream = await async_client.messages.create(
        **QUESTION, stream=True, extra_headers={"X-Mock-Cut": "4"}
    )
    with pytest.raises(anthropic.APIError, match="closed the connection"):
        async for _ in stream:
            pass


def test_compressed_stream_that_is_cut_raises(client: Anthropic) -> None:
    headers = {"X-Mock-Cut": "4", "X-Mock-Encoding": "gzip"}
    with (
        pytest.raises(Exception, match="closed|incomplete|peer|Connection error"),
        client.messages.stream(**QUESTION, extra_headers=headers) as stream,
    ):
        list(stream)


def test_plain_answer_that_is_cut_raises(client: Anthropic) -> None:
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(**QUESTION, extra_headers={"X-Mock-Cut": "20"})
