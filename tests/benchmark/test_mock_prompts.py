from __future__ import annotations

import msgspec
import pytest

from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_prompts import (
    Message,
    check_limit,
    check_model,
    created_at,
    read_prompt,
    text_of,
)


def _messages(text: str) -> list[Message]:
    return msgspec.json.decode(text, type=list[Message])


def test_all_that_was_said_is_counted_and_the_last_is_answered() -> None:
    messages = _messages('[{"role":"user","content":"one two"},{"role":"user","content":"three"}]')
    prompt = read_prompt(messages, system="be brief")
    assert (prompt.last, prompt.tokens) == ("three", 5)


def test_parts_are_read_and_one_that_is_not_text_counts_as_one_token() -> None:
    (message,) = _messages(
        '[{"role":"user","content":[{"type":"text","text":"look here"},{"type":"image_url"}]}]'
    )
    assert text_of(message.content) == "look here [image_url]"
    assert read_prompt([message]).tokens == 3


def test_a_message_without_content_counts_nothing() -> None:
    assert read_prompt(_messages('[{"role":"assistant","content":null}]')).tokens == 0


def test_no_message_is_refused() -> None:
    with pytest.raises(Refused, match="at least one message") as raised:
        read_prompt([])
    assert raised.value.param == "messages"


def test_models_there_to_be_missing_are_404() -> None:
    check_model("anything-else")
    with pytest.raises(Refused, match="`no-such-model` does not exist") as raised:
        check_model("no-such-model")
    assert (raised.value.status, raised.value.code) == (404, "model_not_found")
    with pytest.raises(Refused, match="must provide a model"):
        check_model("")


def test_a_limit_below_one_is_refused_by_name() -> None:
    check_limit(None, "max_tokens")
    check_limit(1, "max_tokens")
    with pytest.raises(Refused, match="max_tokens must be at least 1, not 0") as raised:
        check_limit(0, "max_tokens")
    assert raised.value.param == "max_tokens"


def test_times_come_from_the_request() -> None:
    assert created_at("000000ff") == 1_700_000_000
    assert created_at("0000ff00") == 1_700_000_255
