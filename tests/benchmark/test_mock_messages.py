from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.benchmark.mock_answer import Answer, Refused
from llm_proxy.benchmark.mock_faults import NO_FAULTS
from llm_proxy.benchmark.mock_messages import count_message_tokens, create_message
from llm_proxy.benchmark.mock_request import Request

BODY = {"model": "claude", "max_tokens": 200, "messages": [{"role": "user", "content": "Hi you"}]}


def _request(**fields: Any) -> Request:
    request = Request("POST", b"/v1/messages", [])
    request.collect()
    wanted = {name: value for name, value in {**BODY, **fields}.items() if value is not ...}
    request.feed(json.dumps(wanted).encode())
    return request


def _ask(**fields: Any) -> Answer:
    return create_message(_request(**fields), NO_FAULTS)


def _plain(**fields: Any) -> Any:
    return json.loads(_ask(**fields).body)


def _events(**fields: Any) -> list[Any]:
    events = _ask(stream=True, **fields).events
    assert events is not None
    return [json.loads(event.split(b"data: ")[1]) for _, event in events]


def test_a_plain_answer_has_text_and_usage() -> None:
    answer = _plain(system=[{"type": "text", "text": "be kind"}])
    text = answer["content"][0]["text"]
    assert text.startswith('You said: "Hi you".')
    assert answer["stop_reason"] == "end_turn"
    assert answer["usage"]["input_tokens"] == 4
    assert answer["usage"]["output_tokens"] == len(text.split())


def test_a_limit_that_is_reached_is_the_stop_reason() -> None:
    answer = _plain(max_tokens=2)
    assert answer["content"][0]["text"] == "You said:"
    assert answer["stop_reason"] == "max_tokens"
    assert _events(max_tokens=2)[-2]["delta"]["stop_reason"] == "max_tokens"


def test_a_stream_goes_from_message_start_to_message_stop() -> None:
    events = _events()
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    pieces = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(pieces) == _plain()["content"][0]["text"]
    assert events[0]["message"]["usage"]["input_tokens"] == 2
    assert events[-2]["usage"]["output_tokens"] == len(pieces)


def test_tokens_are_counted_as_messages_count_them() -> None:
    counted = json.loads(
        count_message_tokens(_request(max_tokens=..., system="a b"), NO_FAULTS).body
    )
    assert counted == {"input_tokens": 4}
    assert _plain(system="a b")["usage"]["input_tokens"] == 4


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"max_tokens": ...}, 400, "missing required field `max_tokens`"),
        ({"max_tokens": 0}, 400, "max_tokens must be at least 1"),
        ({"messages": []}, 400, "at least one message"),
        ({"model": "no-such-model"}, 404, "does not exist"),
    ],
)
def test_a_bad_field_is_refused(fields: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(Refused, match=message) as raised:
        _ask(**fields)
    assert raised.value.status == status
