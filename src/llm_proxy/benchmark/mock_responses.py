"""OpenAI's `POST /v1/responses`, plain and streaming."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from llm_proxy.benchmark.mock_answer import EVENT_STREAM, Answer, Event, decode_body, sse
from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_prompts import (
    Message,
    Prompt,
    check_limit,
    check_model,
    created_at,
    read_prompt,
)
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_text import Text, compose


class ResponsesRequest(msgspec.Struct):
    model: str
    input: str | list[Message]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: dict[str, str] | None = None


_decoder = msgspec.json.Decoder(ResponsesRequest)


def create_response(request: Request, faults: Faults) -> Answer:
    asked = decode_body(_decoder, request)
    check_model(asked.model)
    check_limit(asked.max_output_tokens, "max_output_tokens")
    said = [Message(content=asked.input)] if isinstance(asked.input, str) else asked.input
    prompt = read_prompt(said, system=asked.instructions)
    text = compose(prompt.last, limit=asked.max_output_tokens, wanted=faults.tokens)
    identity = request.identity()
    empty = _empty_response(asked, identity)
    item = _item(identity, text)
    final = empty | _outcome(item, prompt, text)
    if asked.stream:
        events = _stream(_Numbered(item["id"]), text, (empty, item, final))
        return Answer(content_type=EVENT_STREAM, events=events)
    return Answer(body=msgspec.json.encode(final))


def _empty_response(asked: ResponsesRequest, identity: str) -> dict[str, Any]:
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": created_at(identity),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": asked.metadata or {},
    }


def _status(text: Text) -> str:
    return "incomplete" if text.was_cut else "completed"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _item(identity: str, text: Text) -> dict[str, Any]:
    return {
        "id": f"msg_{identity}",
        "type": "message",
        "status": _status(text),
        "role": "assistant",
        "content": [_part(str(text))],
    }


def _outcome(item: dict[str, Any], prompt: Prompt, text: Text) -> dict[str, Any]:
    said = len(text.pieces)
    return {
        "status": _status(text),
        "incomplete_details": {"reason": "max_output_tokens"} if text.was_cut else None,
        "output": [item],
        "usage": {
            "input_tokens": prompt.tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt.tokens + said,
        },
    }


class _Numbered:
    """Makes the events of one stream, each with its sequence number."""

    def __init__(self, item_id: str) -> None:
        self._next = 0
        self._of_item = {"item_id": item_id, "output_index": 0, "content_index": 0}

    def event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._next, **fields}
        self._next += 1
        return sse(data, event=kind)

    def of_part(self, kind: str, **fields: Any) -> bytes:
        return self.event(kind, **self._of_item, **fields)


def _stream(
    make: _Numbered, text: Text, parts: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
) -> Iterator[Event]:
    empty, item, final = parts
    started = item | {"status": "in_progress", "content": []}
    yield 0, make.event("response.created", response=empty)
    yield 0, make.event("response.in_progress", response=empty)
    yield 0, make.event("response.output_item.added", output_index=0, item=started)
    yield 0, make.of_part("response.content_part.added", part=_part(""))
    for count, piece in enumerate(text.pieces, start=1):
        yield count, make.of_part("response.output_text.delta", delta=piece, logprobs=[])
    total = len(text.pieces)
    yield total, make.of_part("response.output_text.done", text=str(text), logprobs=[])
    yield total, make.of_part("response.content_part.done", part=item["content"][0])
    yield total, make.event("response.output_item.done", output_index=0, item=item)
    yield total, make.event(f"response.{_status(text)}", response=final)
