"""Anthropic's `POST /v1/messages`, plain and streaming, and `/v1/messages/count_tokens`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from llm_proxy.benchmark.mock_answer import EVENT_STREAM, Answer, Event, decode_body, sse
from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_prompts import (
    Content,
    Message,
    check_limit,
    check_model,
    read_prompt,
)
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_text import Text, compose


class CountRequest(msgspec.Struct):
    model: str
    messages: list[Message]
    system: Content = None


class MessagesRequest(msgspec.Struct):
    model: str
    messages: list[Message]
    max_tokens: int  # required by this API
    system: Content = None
    stream: bool | None = None


_decoder = msgspec.json.Decoder(MessagesRequest)
_count_decoder = msgspec.json.Decoder(CountRequest)


def count_message_tokens(request: Request, faults: Faults) -> Answer:
    asked = decode_body(_count_decoder, request)
    check_model(asked.model)
    prompt = read_prompt(asked.messages, system=asked.system)
    return Answer(body=msgspec.json.encode({"input_tokens": prompt.tokens}))


def create_message(request: Request, faults: Faults) -> Answer:
    asked = decode_body(_decoder, request)
    check_model(asked.model)
    check_limit(asked.max_tokens, "max_tokens")
    prompt = read_prompt(asked.messages, system=asked.system)
    text = compose(prompt.last, limit=asked.max_tokens, wanted=faults.tokens)
    message: dict[str, Any] = {
        "id": f"msg_{request.identity()}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(prompt.tokens, 1),
    }
    if asked.stream:
        return Answer(content_type=EVENT_STREAM, events=_stream(message, text))
    message["content"] = [{"type": "text", "text": str(text)}]
    message["stop_reason"] = _stop_reason(text)
    message["usage"] = _usage(prompt.tokens, len(text.pieces))
    return Answer(body=msgspec.json.encode(message))


def _usage(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _stop_reason(text: Text) -> str:
    return "max_tokens" if text.was_cut else "end_turn"


def _event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, event=kind)


def _stream(message: dict[str, Any], text: Text) -> Iterator[Event]:
    total = len(text.pieces)
    yield 0, _event("message_start", message=message)
    empty = {"type": "text", "text": ""}
    yield 0, _event("content_block_start", index=0, content_block=empty)
    yield 0, _event("ping")
    for count, piece in enumerate(text.pieces, start=1):
        delta = {"type": "text_delta", "text": piece}
        yield count, _event("content_block_delta", index=0, delta=delta)
    yield total, _event("content_block_stop", index=0)
    end = {"stop_reason": _stop_reason(text), "stop_sequence": None}
    yield total, _event("message_delta", delta=end, usage={"output_tokens": total})
    yield total, _event("message_stop")
