from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.benchmark.mock_answer import Answer, Refused
from llm_proxy.benchmark.mock_chat import complete_chat
from llm_proxy.benchmark.mock_faults import NO_FAULTS, Faults
from llm_proxy.benchmark.mock_request import Request

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi there"}]


def _ask(faults: Faults = NO_FAULTS, **fields: Any) -> Answer:
    request = Request("POST", b"/v1/chat/completions", [])
    request.collect()
    request.feed(json.dumps({"model": "gpt-4o", "messages": MESSAGES, **fields}).encode())
    return complete_chat(request, faults)


def _plain(**fields: Any) -> Any:
    return json.loads(_ask(**fields).body)


def _chunks(answer: Answer) -> list[Any]:
    assert answer.events is not None
    *events, last = [data for _, data in answer.events]
    assert last == b"data: [DONE]\n\n"
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def test_a_plain_answer_echoes_the_last_message_and_counts_tokens() -> None:
    answer = _plain()
    text = answer["choices"][0]["message"]["content"]
    usage = answer["usage"]
    assert text.startswith('You said: "Hi there".')
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert usage["prompt_tokens"] == 4
    assert usage["completion_tokens"] == len(text.split())
    assert usage["total_tokens"] == 4 + usage["completion_tokens"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_cuts_the_answer_and_says_so(name: str) -> None:
    answer = _plain(**{name: 3})
    assert answer["choices"][0]["message"]["content"] == 'You said: "Hi'
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_a_stream_says_what_the_plain_answer_says_one_token_a_chunk() -> None:
    chunks = _chunks(_ask(stream=True))
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    text = _plain()["choices"][0]["message"]["content"]
    assert "".join(pieces) == text
    assert len(chunks) == len(text.split()) + 2
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_comes_last_when_asked_for_and_is_null_before() -> None:
    chunks = _chunks(_ask(stream=True, stream_options={"include_usage": True}, max_tokens=5))
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 7
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5


def test_events_say_how_many_tokens_they_are_due_after() -> None:
    events = _ask(stream=True, max_tokens=3).events
    assert events is not None
    assert [tokens for tokens, _ in events] == [0, 1, 2, 3, 3, 3]


def test_the_length_can_be_asked_for() -> None:
    assert _plain(faults=Faults(tokens=100))["usage"]["completion_tokens"] == 100
    assert _plain(faults=Faults(tokens=100), max_tokens=9)["usage"]["completion_tokens"] == 9


def test_null_means_not_given() -> None:
    answer = _plain(stream=None, max_tokens=None, stream_options=None)
    assert answer["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": "hi"}, 400, "messages"),
        ({"model": "no-such-model"}, 404, "model"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_completion_tokens": -1}, 400, "max_completion_tokens"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], status: int, param: str) -> None:
    with pytest.raises(Refused) as raised:
        _ask(**fields)
    assert (raised.value.status, raised.value.param) == (status, param)
