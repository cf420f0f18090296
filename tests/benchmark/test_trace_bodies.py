from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.benchmark.presets import PRESETS
from llm_proxy.benchmark.trace_bodies import TraceBodies

RECORD = {
    "request_id": "0194",
    "endpoint": "/v1/chat/completions",
    "metadata": {"model": "gpt-4o", "prompt_tokens": 9, "completion_tokens": 120},
}


def bodies_for(preset: str = "chat", endpoint: str | None = None) -> TraceBodies:
    chosen = PRESETS[preset]
    endpoint = endpoint or chosen.endpoint
    return TraceBodies(chosen, endpoint=endpoint, model=None, stream=False, seed=1)


def body_of(line: dict[str, Any], preset: str = "chat") -> dict[str, Any]:
    body: dict[str, Any] = json.loads(bodies_for(preset).body(line) or b"null")
    return body


def test_bodies_and_messages_are_sent_as_they_are() -> None:
    whole = {"model": "m", "messages": [], "seed": 3}
    assert body_of({"timestamp": 0, "body": whole}) == whole
    messages = [{"role": "user", "content": "Hello"}]
    line = {"timestamp": 1, "messages": messages, "temperature": 0, "output_length": 5}
    own = {"messages": messages, "temperature": 0, "max_tokens": 5}
    assert body_of(line) == {"model": "gpt-4o-mini", **own}


def test_anthropic_is_always_told_how_long_its_answer_may_be() -> None:
    metadata = {"prompt_tokens": 0, "completion_tokens": None}
    record = {**RECORD, "endpoint": "/v1/messages", "metadata": metadata}
    body = body_of(record, "messages")
    assert body["max_tokens"] == 256
    assert body["messages"][-1]["content"]


def test_embeddings_have_no_length_of_an_answer() -> None:
    assert set(body_of({"input_length": 3, "output_length": 0}, "embeddings")) == {"model", "input"}


def test_equal_lengths_are_made_up_once() -> None:
    bodies = bodies_for()
    assert not bodies.has_made_up
    line = {"input_length": 30, "output_length": 4}
    assert bodies.body(line) is bodies.body(dict(line))
    assert bodies.body({**line, "input_length": 31}) != bodies.body(line)
    assert bodies.has_made_up


@pytest.mark.parametrize("endpoint", ["/v1/models", None, ""])
def test_record_of_another_endpoint_asks_for_nothing(endpoint: str | None) -> None:
    assert bodies_for().body({**RECORD, "endpoint": endpoint}) is None


def test_endpoint_may_have_a_prefix_and_a_query() -> None:
    bodies = bodies_for(endpoint="/team/v1/chat/completions?beta=1")
    assert bodies.body(RECORD) is not None


def test_line_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="it must have body, messages, prompt or input_length"):
        bodies_for().body({"timestamp": 1})
