from __future__ import annotations

import msgspec
import pytest

from llm_proxy.chat.anthropic_dialect import AnthropicDialect
from llm_proxy.chat.question import Message, Part, Question, Usage
from llm_proxy.secrets import Secret


def test_question_has_all_that_was_asked_for() -> None:
    question = Question(
        model="claude-x", messages=[Message("user", "hi")], system="Be brief.", temperature=0.5
    )
    assert AnthropicDialect().body(question) == {
        "model": "claude-x",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "hi"}],
        "system": "Be brief.",
        "temperature": 0.5,
        "stream": True,
    }


def test_question_has_nothing_that_was_not_asked_for() -> None:
    question = Question(model="m", messages=[], max_tokens=7, streams=False)
    assert AnthropicDialect().body(question) == {"model": "m", "max_tokens": 7, "messages": []}


def test_token_is_a_key_and_the_version_is_told() -> None:
    headers = AnthropicDialect().headers(Secret("sk-1"))
    assert headers == {"x-api-key": "sk-1", "anthropic-version": "2023-06-01"}


def test_refusals_teach_nothing() -> None:
    assert not AnthropicDialect().adapts_to("max_completion_tokens")


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (
            b'{"type":"message_start","message":{"usage":{"input_tokens":1,'
            b'"cache_creation_input_tokens":10,"cache_read_input_tokens":100,"output_tokens":1}}}',
            Part(usage=Usage(tokens_in=111, tokens_out=1)),
        ),
        (b'{"type":"content_block_start","content_block":{"type":"text","text":""}}', Part()),
        (
            b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}',
            Part(text="Hi"),
        ),
        (
            b'{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"x"}}',
            Part(),
        ),
        (
            b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}',
            Part(usage=Usage(tokens_out=9), finish="end_turn"),
        ),
        (b'{"type":"ping"}', Part()),
        (b'{"type":"some_day_there_is_more","x":[1]}', Part()),
        (b'{"type":"message_stop"}', Part(is_end=True)),
        (b'{"type":"error","error":{"type":"overloaded_error"}}', Part(failure="overloaded_error")),
    ],
)
def test_events_are_read(data: bytes, part: Part) -> None:
    assert AnthropicDialect().part(data) == part


def test_whole_answer_is_the_text_of_its_blocks() -> None:
    body = (
        b'{"content":[{"type":"thinking","thinking":"x"},{"type":"text","text":"A"},'
        b'{"type":"text","text":"B"}],"stop_reason":"end_turn",'
        b'"usage":{"input_tokens":1,"output_tokens":2}}'
    )
    usage = Usage(tokens_in=1, tokens_out=2)
    assert AnthropicDialect().whole(body) == Part(text="AB", finish="end_turn", usage=usage)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>"])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        AnthropicDialect().whole(body)
