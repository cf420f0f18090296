"""OpenAI's `POST /v1/chat/completions`, plain and streaming."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from llm_proxy.benchmark.mock_answer import EVENT_STREAM, Answer, Event, decode_body, sse
from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_prompts import (
    Message,
    check_limit,
    check_model,
    created_at,
    read_prompt,
)
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_text import Text, compose


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_decoder = msgspec.json.Decoder(ChatRequest)


def complete_chat(request: Request, faults: Faults) -> Answer:
    chat = decode_body(_decoder, request)
    check_model(chat.model)
    check_limit(chat.max_tokens, "max_tokens")
    check_limit(chat.max_completion_tokens, "max_completion_tokens")
    prompt = read_prompt(chat.messages)
    limit = chat.max_completion_tokens or chat.max_tokens
    text = compose(prompt.last, limit=limit, wanted=faults.tokens)
    usage = _usage(prompt.tokens, len(text.pieces))
    if chat.stream:
        options = chat.stream_options or StreamOptions()
        last = usage if options.include_usage else None
        events = _stream(_head(request, chat.model, is_chunk=True), text, last)
        return Answer(content_type=EVENT_STREAM, events=events)
    answer = _head(request, chat.model, is_chunk=False)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": str(text),
        "refusal": None,
        "annotations": [],
    }
    answer["choices"] = [
        {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(text)}
    ]
    answer["usage"] = usage
    return Answer(body=msgspec.json.encode(answer))


def _head(request: Request, model: str, *, is_chunk: bool) -> dict[str, Any]:
    identity = request.identity()
    return {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion.chunk" if is_chunk else "chat.completion",
        "created": created_at(identity),
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
    }


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _finish_reason(text: Text) -> str:
    return "length" if text.was_cut else "stop"


def _stream(head: dict[str, Any], text: Text, usage: dict[str, Any] | None) -> Iterator[Event]:
    # With include_usage every chunk has the field, null but in the last.
    tail: dict[str, Any] = {} if usage is None else {"usage": None}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return sse({**head, "choices": [choice], **tail})

    yield 0, chunk({"role": "assistant", "content": "", "refusal": None})
    for count, piece in enumerate(text.pieces, start=1):
        yield count, chunk({"content": piece})
    total = len(text.pieces)
    yield total, chunk({}, _finish_reason(text))
    if usage is not None:
        yield total, sse({**head, "choices": [], "usage": usage})
    yield total, b"data: [DONE]\n\n"
