from __future__ import annotations

import asyncio
import gzip
from dataclasses import replace

import pytest

from llm_proxy.chat.client import ChatClient
from llm_proxy.chat.question import Answer, Api, Message, Question, Usage
from llm_proxy.chat.target import Target
from llm_proxy.errors import LLMProxyError, NotFound
from tests.chat.serving import SAID, SSE_HEAD, answering, plain, playing
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.raw_upstream import Peer, RawUpstream

pytestmark = pytest.mark.anyio
QUESTION = Question(model="mock", messages=[Message("user", "Say hello")])


async def _ask(target: Target, question: Question = QUESTION) -> tuple[str, Answer]:
    said: list[str] = []
    async with ChatClient(target) as client:
        answer = await client.ask(question, said.append)
    return "".join(said), answer


@pytest.mark.parametrize("api", ["openai", "anthropic"])
@pytest.mark.parametrize("streams", [True, False])
async def test_answer_has_text_usage_and_times(target: Target, api: Api, streams: bool) -> None:
    text, answer = await _ask(replace(target, api=api), replace(QUESTION, streams=streams))
    assert text.startswith('You said: "Say hello".')
    assert answer.usage == Usage(tokens_in=2, tokens_out=len(text.split()))
    assert answer.finish in ("stop", "end_turn")
    assert (answer.first_text_s is not None) == streams
    assert answer.total_s >= (answer.first_text_s or 0)


async def test_anthropic_is_found_behind_the_proxy_and_directly(
    target: Target, mock: MockThread
) -> None:
    await _ask(replace(target, api="anthropic"))
    assert mock.requests[-2].target == b"/anthropic/v1/messages"
    assert mock.requests[-1].target == b"/v1/messages"


async def test_limit_of_tokens_cuts_the_answer(target: Target) -> None:
    text, answer = await _ask(target, replace(QUESTION, max_tokens=3))
    assert len(text.split()) == 3
    assert answer.was_cut


async def test_missing_model_is_named(target: Target) -> None:
    with pytest.raises(NotFound, match="the model no-such-one can't be used"):
        await _ask(target, replace(QUESTION, model="no-such-one"))


async def test_text_is_handed_over_as_it_comes(upstream: RawUpstream, raw_target: Target) -> None:
    """The upstream goes on only when the first half was seen."""
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    go_on = asyncio.Event()

    def halves(peer: Peer) -> None:
        peer.read_message()
        peer.send(SSE_HEAD + SAID % b"one ")
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        peer.send(SAID % b"two" + b"data: [DONE]\n\n")

    said: list[str] = []

    def take(text: str) -> None:
        said.append(text)
        seen.set()

    with playing(upstream, halves):
        async with ChatClient(raw_target) as client:
            asking = asyncio.create_task(client.ask(QUESTION, take))
            await asyncio.wait_for(seen.wait(), 10)
            assert said == ["one "]
            go_on.set()
            await asking
    assert said == ["one ", "two"]


async def test_stopping_closes_the_connection(upstream: RawUpstream, raw_target: Target) -> None:
    seen = asyncio.Event()
    ends: list[bytes] = []

    def never_end(peer: Peer) -> None:
        peer.read_message()
        peer.send(SSE_HEAD + SAID % b"one ")
        ends.append(peer.sock.recv(1))

    with playing(upstream, never_end):
        async with ChatClient(raw_target) as client:
            asking = asyncio.create_task(client.ask(QUESTION, lambda text: seen.set()))
            await asyncio.wait_for(seen.wait(), 10)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
    assert ends == [b""]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (SSE_HEAD + SAID % b"half", "broke off"),
        (SSE_HEAD + SAID % b"half" + b'data: {"error":{"message":"Overloaded"}}\n\n', "Overloaded"),
        (SSE_HEAD + SAID % b"half" + b'data: {"choi', "broke off"),
        (SSE_HEAD + b"data: not json\n\n", "can't be understood"),
        (SSE_HEAD + b"data: " + b"x" * (5 << 20), "an event without an end"),
        (plain(b"200 OK", b"<html>"), "can't be understood"),
        (plain(b"200 OK", b"\xff"), "can't be understood"),
        (plain(b"200 OK", b'{"error":{"message":"oh no"}}'), "oh no"),
        (plain(b"429 Slow", b"", b"Retry-After: 4\r\n"), "try again in 4 s"),
    ],
)
async def test_what_goes_wrong_is_a_sentence(
    upstream: RawUpstream, raw_target: Target, body: bytes, words: str
) -> None:
    with (
        answering(upstream, body),
        pytest.raises(LLMProxyError, match=words),
    ):
        await _ask(raw_target)


async def test_token_in_an_error_of_a_stream_is_masked(
    upstream: RawUpstream, raw_target: Target
) -> None:
    token = raw_target.token.reveal().encode()
    with (
        answering(upstream, SSE_HEAD + b'data: {"error":"no %s"}\n\n' % token),
        pytest.raises(LLMProxyError, match="no sk-toke…0123;"),
    ):
        await _ask(raw_target)


@pytest.mark.parametrize(
    "body",
    [
        SSE_HEAD + SAID % b"Hi" + b"data: [DONE]\n\n",
        SSE_HEAD.replace(b"text/event-stream", b"Text/Event-Stream;charset=utf-8")
        + SAID % b"Hi"
        + b"data: [DONE]\n\n",
        SSE_HEAD + SAID % b"Hi" + b"data: [DONE]",
        SSE_HEAD + b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}',
        SSE_HEAD + SAID % b"Hi" + b"data: [DONE]\n\n" + SAID % b"no more",
        plain(b"200 OK", b'{"choices":[{"message":{"content":"Hi"}}]}'),
        plain(
            b"200 OK",
            gzip.compress(b'{"choices":[{"message":{"content":"Hi"}}]}'),
            b"Content-Encoding: gzip\r\n",
        ),
    ],
)
async def test_other_servers_ways_are_understood(
    upstream: RawUpstream, raw_target: Target, body: bytes
) -> None:
    with answering(upstream, body):
        assert (await _ask(raw_target))[0] == "Hi"


async def test_refused_wording_is_tried_anew(upstream: RawUpstream, raw_target: Target) -> None:
    refusal = plain(b"400 Bad Request", b'{"error":{"message":"use max_completion_tokens"}}')
    fine = SSE_HEAD + SAID % b"Hi" + b"data: [DONE]\n\n"
    with answering(upstream, refusal, fine) as requests:
        assert (await _ask(raw_target, replace(QUESTION, max_tokens=5)))[0] == "Hi"
    assert b'"max_tokens":5' in requests[0].body
    assert b'"max_completion_tokens":5' in requests[1].body


async def test_trace_has_request_and_answer_without_the_token(target: Target) -> None:
    traced: list[tuple[str, object]] = []
    async with ChatClient(target, trace=lambda *what: traced.append(what)) as client:
        await client.ask(replace(QUESTION, streams=False), lambda text: None)
    assert [name for name, _ in traced] == ["request", "answer", "body"]
    assert target.token.reveal() not in repr(traced)
