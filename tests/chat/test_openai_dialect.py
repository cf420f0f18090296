from __future__ import annotations

import msgspec
import pytest

from llm_proxy.chat.openai_dialect import OpenAIDialect
from llm_proxy.chat.question import Message, Part, Question, Usage
from llm_proxy.secrets import Secret

QUESTION = Question(
    model="gpt-x", messages=[Message("user", "hi")], system="Be brief.", temperature=0, max_tokens=9
)


def test_question_has_all_that_was_asked_for() -> None:
    assert OpenAIDialect().body(QUESTION) == {
        "model": "gpt-x",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ],
        "temperature": 0,
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_question_has_nothing_that_was_not_asked_for() -> None:
    question = Question(model="m", messages=[Message("user", "hi")], streams=False)
    assert set(OpenAIDialect().body(question)) == {"model", "messages"}


def test_newer_models_get_their_word_for_the_limit() -> None:
    dialect = OpenAIDialect()
    refusal = "Unsupported parameter: use 'max_completion_tokens' instead"
    assert dialect.adapts_to(refusal)
    body = dialect.body(QUESTION)
    assert body["max_completion_tokens"] == 9
    assert "max_tokens" not in body
    assert not dialect.adapts_to(refusal)


def test_servers_that_know_no_stream_options_get_none() -> None:
    dialect = OpenAIDialect()
    assert dialect.adapts_to("extra field: stream_options")
    assert "stream_options" not in dialect.body(QUESTION)
    assert not dialect.adapts_to("something else")


def test_token_is_a_bearer() -> None:
    assert OpenAIDialect().headers(Secret("sk-1")) == {"Authorization": "Bearer sk-1"}


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b'{"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}', Part(text="Hi")),
        (b'{"choices":[{"delta":{"refusal":"No."}}]}', Part(text="No.")),
        (b'{"choices":[{"delta":{},"finish_reason":"stop"}],"x":1}', Part(finish="stop")),
        (
            b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
            Part(usage=Usage(tokens_in=1, tokens_out=2)),
        ),
        (b"[DONE]", Part(is_end=True)),
        (b'{"error":{"message":"Overloaded."}}', Part(failure="Overloaded")),
        (b'{"error":"oh"}', Part(failure="oh")),
    ],
)
def test_events_are_read(data: bytes, part: Part) -> None:
    assert OpenAIDialect().part(data) == part


def test_whole_answer_is_read() -> None:
    body = b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}'
    assert OpenAIDialect().whole(body) == Part(text="Hi", finish="stop")


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"choices":[]}', b'{"choices":7}'])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        OpenAIDialect().whole(body)
