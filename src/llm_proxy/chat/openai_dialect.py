"""OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.chat.problem import problem_text
from llm_proxy.chat.question import Part, Question, Usage
from llm_proxy.secrets import Secret


class _Text(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    delta: _Text | None = None
    message: _Text | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


class OpenAIDialect:
    path = "/chat/completions"

    def __init__(self) -> None:
        # The word that every compatible server knows; newer models want the other one.
        self._limit = "max_tokens"
        self._asks_usage = True

    def headers(self, token: Secret) -> dict[str, str]:
        return {"Authorization": f"Bearer {token.reveal()}"}

    def body(self, question: Question) -> dict[str, Any]:
        messages = [{"role": m.role, "content": m.content} for m in question.messages]
        if question.system is not None:
            messages.insert(0, {"role": "system", "content": question.system})
        body: dict[str, Any] = {"model": question.model, "messages": messages}
        if question.temperature is not None:
            body["temperature"] = question.temperature
        if question.max_tokens is not None:
            body[self._limit] = question.max_tokens
        if question.streams:
            body["stream"] = True
            if self._asks_usage:
                body["stream_options"] = {"include_usage": True}
        return body

    def adapts_to(self, refusal: str) -> bool:
        if self._limit == "max_tokens" and "max_completion_tokens" in refusal:
            self._limit = "max_completion_tokens"
            return True
        if self._asks_usage and "stream_options" in refusal:
            self._asks_usage = False
            return True
        return False

    def part(self, data: bytes) -> Part:
        return Part(is_end=True) if data.strip() == b"[DONE]" else _read(data)

    def whole(self, body: bytes) -> Part:
        part = _read(body)
        if part.failure is None and not part.finish and not part.text:
            raise msgspec.ValidationError("there is no choice in it")
        return part


def _read(data: bytes) -> Part:
    chunk = _decoder.decode(data)
    if chunk.error is not None:
        return Part(failure=problem_text(chunk.error))
    text, finish = "", None
    for choice in (chunk.choices or [])[:1]:
        said = choice.delta or choice.message or _Text()
        text = (said.content or "") + (said.refusal or "")
        finish = choice.finish_reason
    usage = None
    if chunk.usage is not None:
        usage = Usage(tokens_in=chunk.usage.prompt_tokens, tokens_out=chunk.usage.completion_tokens)
    return Part(text=text, finish=finish, usage=usage)
