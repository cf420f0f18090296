"""The official Anthropic SDK against the mock, with its strict validation of answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from llm_proxy.benchmark.mock_upstream import MockServer

pytestmark = pytest.mark.anyio

MODEL = "claude-mock"


@pytest.fixture
async def client(mock: MockServer) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        base_url=f"http://{mock.address}",
        api_key="sk-ant-mock",
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


async def test_message(client: AsyncAnthropic) -> None:
    message = await client.messages.create(
        model=MODEL,
        max_tokens=100,
        system="Be brief.",
        messages=[{"role": "user", "content": [{"type": "text", "text": "Where is my cat?"}]}],
    )
    assert message.content[0].type == "text"
    assert message.content[0].text.startswith('You said: "Where is my cat?".')
    assert message.usage.input_tokens == 6
    assert message.stop_reason == "end_turn"


async def test_message_stream_of_raw_events(client: AsyncAnthropic) -> None:
    stream = await client.messages.create(
        model=MODEL, max_tokens=4, messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    kinds = [event.type async for event in stream]
    assert kinds[0] == "message_start"
    assert kinds.count("content_block_delta") == 4
    assert kinds[-1] == "message_stop"


async def test_message_stream_put_together_by_the_sdk(client: AsyncAnthropic) -> None:
    async with client.messages.stream(
        model=MODEL, max_tokens=200, messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        message = await stream.get_final_message()
    assert text.startswith('You said: "Hi".')
    assert message.usage.output_tokens == len(text.split())
    assert message.stop_reason == "end_turn"


async def test_messages_from_the_synchronous_client(mock: MockServer) -> None:
    def use() -> tuple[str, str]:
        with Anthropic(
            base_url=f"http://{mock.address}",
            api_key="sk-ant-mock",
            max_retries=0,
            _strict_response_validation=True,
        ) as client:
            plain = client.messages.create(
                model=MODEL, max_tokens=99, messages=[{"role": "user", "content": "Hi"}]
            )
            with client.messages.stream(
                model=MODEL, max_tokens=99, messages=[{"role": "user", "content": "Hi"}]
            ) as stream:
                streamed = "".join(stream.text_stream)
        assert plain.content[0].type == "text"
        return plain.content[0].text, streamed

    plain, streamed = await asyncio.to_thread(use)
    assert plain == streamed


async def test_token_count(client: AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(
        model=MODEL, messages=[{"role": "user", "content": "one two three"}]
    )
    assert counted.input_tokens == 3


async def test_models(client: AsyncAnthropic) -> None:
    names = [model.id async for model in client.models.list()]
    assert MODEL in names
    assert (await client.models.retrieve("my-own")).id == "my-own"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.APIStatusError),
    ],
)
async def test_errors_become_the_sdk_s_own(
    client: AsyncAnthropic, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(kind, match=f"asked for this {status}") as raised:
        await client.messages.create(
            model=MODEL,
            max_tokens=9,
            messages=[{"role": "user", "content": "Hi"}],
            extra_headers={"X-Mock-Status": str(status)},
        )
    assert raised.value.status_code == status
    assert raised.value.request_id is not None


async def test_a_model_that_does_not_exist(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="no-such-model"):
        await client.messages.create(
            model="no-such-model", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        )


async def test_a_bearer_token_is_accepted_too(mock: MockServer) -> None:
    async with AsyncAnthropic(
        base_url=f"http://{mock.address}", auth_token="token", max_retries=0
    ) as client:
        assert (await client.models.retrieve(MODEL)).id == MODEL
