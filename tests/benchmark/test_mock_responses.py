from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.benchmark.mock_answer import Answer, Refused
from llm_proxy.benchmark.mock_faults import NO_FAULTS
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_responses import create_response


def _ask(**fields: Any) -> Answer:
    request = Request("POST", b"/v1/responses", [])
    request.collect()
    request.feed(json.dumps({"model": "gpt-4o", "input": "Hi there", **fields}).encode())
    return create_response(request, NO_FAULTS)


def _plain(**fields: Any) -> Any:
    return json.loads(_ask(**fields).body)


def _events(**fields: Any) -> list[Any]:
    events = _ask(stream=True, **fields).events
    assert events is not None
    found = []
    for _, event in events:
        name, data, *_ = event.decode().split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_plain_answer_has_one_message_and_usage() -> None:
    answer = _plain(instructions="be kind")
    text = answer["output"][0]["content"][0]["text"]
    assert text.startswith('You said: "Hi there".')
    assert answer["status"] == "completed"
    assert answer["usage"]["input_tokens"] == 4
    assert answer["usage"]["output_tokens"] == len(text.split())


def test_input_may_be_a_list_of_messages() -> None:
    answer = _plain(input=[{"role": "user", "content": [{"type": "input_text", "text": "a b c"}]}])
    assert answer["usage"]["input_tokens"] == 3


def test_a_limit_leaves_the_answer_incomplete() -> None:
    answer = _plain(max_output_tokens=2)
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert _events(max_output_tokens=2)[-1]["type"] == "response.incomplete"


def test_a_stream_goes_from_created_to_completed_with_numbers_in_order() -> None:
    events = _events()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    text = _plain()["output"][0]["content"][0]["text"]
    assert "".join(deltas) == text
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
    assert events[0]["response"]["output"] == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"input": 5}, "input"), ({"max_output_tokens": 0}, "max_output_tokens")],
)
def test_a_bad_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as raised:
        _ask(**fields)
    assert (raised.value.status, raised.value.param) == (400, param)
