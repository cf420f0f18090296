"""Anthropic's messages."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llm_proxy.chat.problem import problem_text
from llm_proxy.chat.question import Part, Question, Usage
from llm_proxy.secrets import Secret

VERSION: Final = "2023-06-01"
_MAX_TOKENS: Final = 4096  # this API wants a limit; every model allows this one


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Delta(msgspec.Struct):
    text: str | None = None
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    usage: _Usage | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


class _Whole(msgspec.Struct):
    content: list[_Block]
    stop_reason: str | None = None
    usage: _Usage | None = None


_event_decoder = msgspec.json.Decoder(_Event)
_whole_decoder = msgspec.json.Decoder(_Whole)


class AnthropicDialect:
    path = "/messages"

    def headers(self, token: Secret) -> dict[str, str]:
        return {"x-api-key": token.reveal(), "anthropic-version": VERSION}

    def body(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": question.model,
            "max_tokens": question.max_tokens or _MAX_TOKENS,
            "messages": [{"role": m.role, "content": m.content} for m in question.messages],
        }
        if question.system is not None:
            body["system"] = question.system
        if question.temperature is not None:
            body["temperature"] = question.temperature
        if question.streams:
            body["stream"] = True
        return body

    def adapts_to(self, refusal: str) -> bool:
        return False

    def part(self, data: bytes) -> Part:
        event = _event_decoder.decode(data)
        if event.error is not None:
            return Part(failure=problem_text(event.error))
        if event.type == "message_start":
            return Part(usage=_usage(event.message.usage if event.message else None))
        if event.type == "content_block_start":
            return Part(text=_text(event.content_block))
        if event.type == "content_block_delta":
            return Part(text=(event.delta.text if event.delta else None) or "")
        if event.type == "message_delta":
            finish = event.delta.stop_reason if event.delta else None
            return Part(usage=_usage(event.usage), finish=finish)
        return Part(is_end=event.type == "message_stop")

    def whole(self, body: bytes) -> Part:
        answer = _whole_decoder.decode(body)
        text = "".join(_text(block) for block in answer.content)
        return Part(text=text, finish=answer.stop_reason, usage=_usage(answer.usage))


def _text(block: _Block | None) -> str:
    return (block.text or "") if block is not None and block.type == "text" else ""


def _usage(usage: _Usage | None) -> Usage | None:
    """What was read from a cache or written to it was sent in, too."""
    if usage is None:
        return None
    sent = usage.input_tokens
    if sent is not None:
        sent += (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return Usage(tokens_in=sent, tokens_out=usage.output_tokens)
