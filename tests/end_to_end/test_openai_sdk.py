"""The official OpenAI SDK through a real server; only its base URL and its key are ours."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

from llm_proxy.manage.objects import NewToken
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.server_process import ServerProcess

pytestmark = pytest.mark.anyio

MODEL = "gpt-4o-mini"
HELLO = 'You said: "Hello".'


@pytest.fixture
def client(server: ServerProcess, token: str) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{server.url}/v1",
        api_key=token,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
async def async_client(server: ServerProcess, token: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{server.url}/v1",
        api_key=token,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


def test_chat_completion(client: OpenAI, mock: MockThread, token: str) -> None:
    completion = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}]
    )
    assert (completion.choices[0].message.content or "").startswith(HELLO)
    assert completion.usage is not None
    received = mock.requests[-1]
    sent = dict(received.headers)
    assert received.target == b"/v1/chat/completions"
    assert sent[b"Authorization"] == b"Bearer sk-upstream-openai-0123456789abcdef"
    assert all(token.encode() not in value for value in sent.values())


def test_chat_completion_stream(client: OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith(HELLO)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(text.split())


async def test_chat_completion_and_stream_say_the_same_asynchronously(
    async_client: AsyncOpenAI,
) -> None:
    plain = await async_client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}]
    )
    async with async_client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}]
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == plain.choices[0].message.content


def test_response(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="Hello")
    assert response.status == "completed"
    assert response.output_text.startswith(HELLO)


def test_response_stream(client: OpenAI) -> None:
    with client.responses.create(model=MODEL, input="Hello", stream=True) as stream:
        events = list(stream)
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text.startswith(HELLO)


async def test_response_stream_asynchronously(async_client: AsyncOpenAI) -> None:
    stream = await async_client.responses.create(model=MODEL, input="Hello", stream=True)
    kinds = [event.type async for event in stream]
    assert kinds.count("response.output_text.delta") > 3
    assert kinds[-1] == "response.completed"


def test_embeddings_in_both_formats(client: OpenAI) -> None:
    model, words = "text-embedding-3-small", ["cat", "dog"]
    plain = client.embeddings.create(model=model, input=words, encoding_format="float")
    # Asked for no format the SDK takes base64, which its own strict validation refuses.
    lax = client.with_options(_extra_kwargs={"_strict_response_validation": False})
    packed = lax.embeddings.create(model=model, input=words)
    cat, dog = (item.embedding for item in plain.data)
    assert [cat, dog] == [item.embedding for item in packed.data]
    assert len(cat) == len(dog) == 1536
    assert cat != dog


def test_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert MODEL in names
    assert client.models.retrieve(MODEL).id == MODEL


def test_file_comes_back_as_it_was_uploaded(client: OpenAI) -> None:
    content = bytes(range(256)) * 1000
    file = client.files.create(file=("every byte.bin", content), purpose="user_data")
    assert file.bytes == len(content)
    assert file.id in [listed.id for listed in client.files.list()]
    assert client.files.retrieve(file.id).filename == "every byte.bin"
    assert client.files.content(file.id).read() == content
    assert client.files.delete(file.id).deleted
    assert file.id not in [listed.id for listed in client.files.list()]


async def test_file_asynchronously(async_client: AsyncOpenAI) -> None:
    content = b'{"prompt": "Hello"}\n'
    file = await async_client.files.create(file=("batch.jsonl", content), purpose="batch")
    assert (await async_client.files.content(file.id)).content == content
    await async_client.files.delete(file.id)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_compressed_stream_is_read(client: OpenAI, encoding: str) -> None:
    with client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        extra_headers={"X-Mock-Encoding": encoding},
    ) as stream:
        assert stream.response.headers["content-encoding"] == encoding
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text.startswith(HELLO)


def test_token_is_also_taken_from_a_basic_user_s_header(
    server: ServerProcess, new_token: Callable[..., NewToken]
) -> None:
    """`api-key`, as the Azure client of the SDK sends it, and nothing in Authorization."""
    made = new_token().token
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        answer = client.with_options(
            default_headers={"api-key": made, "Authorization": "Basic " + _basic("me:secret")}
        ).models.retrieve(MODEL)
    assert answer.id == MODEL


def _basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
