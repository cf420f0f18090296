"""The official OpenAI SDK against the mock, with its strict validation of answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer
from llm_proxy.secrets import Secret

pytestmark = pytest.mark.anyio

T = TypeVar("T")
MODEL = "gpt-4o-mini"


@pytest.fixture
async def client(mock: MockServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"http://{mock.address}/v1",
        api_key="sk-mock",
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


async def _in_thread(mock: MockServer, use: Callable[[OpenAI], T]) -> T:
    """Runs `use` with a synchronous client while the mock runs on the loop."""

    def run() -> T:
        with OpenAI(
            base_url=f"http://{mock.address}/v1",
            api_key="sk-mock",
            max_retries=0,
            _strict_response_validation=True,
        ) as client:
            return use(client)

    return await asyncio.to_thread(run)


async def test_chat_completion(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Where is my cat?"}]},
        ],
    )
    assert completion.model == MODEL
    assert (completion.choices[0].message.content or "").startswith('You said: "Where is my cat?"')
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 6


async def test_chat_completion_stream_with_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    async for chunk in stream:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert text.startswith('You said: "Hello".')
    assert usage is not None
    assert usage.completion_tokens == len(text.split())


async def test_chat_from_the_synchronous_client(mock: MockServer) -> None:
    def use(client: OpenAI) -> tuple[str, str]:
        plain = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}]
        )
        with client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=True
        ) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        return plain.choices[0].message.content or "", "".join(pieces)

    plain, streamed = await _in_thread(mock, use)
    assert plain == streamed


async def test_the_sdk_s_own_stream_helper_puts_the_completion_together(
    client: AsyncOpenAI,
) -> None:
    async with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert "content.delta" in kinds
    assert final.choices[0].finish_reason == "stop"
    assert (final.choices[0].message.content or "").startswith('You said: "Hi".')


async def test_response(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="Hello", instructions="Be kind.")
    assert response.status == "completed"
    assert response.output_text.startswith('You said: "Hello".')
    assert response.usage is not None
    assert response.usage.input_tokens == 3


async def test_response_stream(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(
        model=MODEL, input=[{"role": "user", "content": "Hello"}], stream=True
    )
    text, final = "", None
    async for event in stream:
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.completed":
            final = event.response
    assert final is not None
    assert final.output_text == text


async def test_embeddings(client: AsyncOpenAI) -> None:
    created = await client.embeddings.create(
        model="text-embedding-3-small", input=["a", "b"], dimensions=16, encoding_format="float"
    )
    assert [len(item.embedding) for item in created.data] == [16, 16]
    assert created.usage.total_tokens == 2


async def test_embeddings_in_the_sdk_s_own_encoding_are_the_same(
    mock: MockServer, client: AsyncOpenAI
) -> None:
    """It asks for base64 when no format is named, and then fails its own strict validation."""
    model = "text-embedding-3-small"
    plain = await client.embeddings.create(model=model, input="a", encoding_format="float")
    base_url = f"http://{mock.address}/v1"
    async with AsyncOpenAI(base_url=base_url, api_key="sk-mock", max_retries=0) as lax:
        packed = await lax.embeddings.create(model=model, input="a")
    assert packed.data[0].embedding == plain.data[0].embedding
    assert len(packed.data[0].embedding) == 1536


async def test_models(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert MODEL in names
    assert (await client.models.retrieve("my/own")).id == "my/own"


async def test_files(client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("data.jsonl", b'{"a":1}\n'), purpose="batch")
    other = await client.files.create(file=("img.png", bytes(3_000_000)), purpose="vision")
    assert other.bytes == 3_000_000
    assert [item.id async for item in client.files.list(limit=1)] == [other.id, file.id]
    assert await client.files.retrieve(file.id) == file
    content = await client.files.content(file.id)
    assert content.content == b'{"a":1}\n'
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(file.id)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_errors_become_the_sdk_s_own(
    client: AsyncOpenAI, status: int, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind, match=f"asked for this {status}") as raised:
        await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            extra_headers={"X-Mock-Status": str(status), "X-Mock-Retry-After": "3"},
        )
    assert raised.value.response.headers["retry-after"] == "3"
    assert raised.value.request_id is not None


async def test_a_model_that_does_not_exist(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`no-such-model`") as raised:
        await client.embeddings.create(model="no-such-model", input="x")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("mock_options", [MockOptions(api_key=Secret("sk-another"))], indirect=True)
async def test_another_key_than_the_one_wanted(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="isn't the one"):
        await client.models.retrieve(MODEL)


async def test_a_cut_stream_is_an_error_for_the_sdk(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        extra_headers={"X-Mock-Cut": "3"},
    )
    received = 0
    with pytest.raises(Exception, match="peer closed|incomplete|Connection error"):
        async for _ in stream:
            received += 1
    assert received == 3


async def test_a_connection_cut_before_the_head(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        await client.with_options(default_headers={"X-Mock-Cut": "head"}).models.retrieve(MODEL)


async def test_an_encoded_stream_reads_the_same(client: AsyncOpenAI) -> None:
    texts = []
    for headers in ({}, {"X-Mock-Encoding": "gzip"}, {"X-Mock-Encoding": "br"}):
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            extra_headers=headers,
        )
        texts.append([chunk.choices[0].delta.content async for chunk in stream])
    assert texts[0] == texts[1] == texts[2]


async def test_the_history_shows_what_the_sdk_sent(mock: MockServer, client: AsyncOpenAI) -> None:
    await client.models.retrieve(MODEL)
    (received,) = mock.requests
    assert (received.method, received.target) == ("GET", b"/v1/models/gpt-4o-mini")
    assert (b"authorization", b"Bearer sk-mock") in received.headers
