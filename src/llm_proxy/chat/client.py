"""Asks a model, and hands over what it says as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import httpx
import msgspec

from llm_proxy.chat import failures
from llm_proxy.chat.dialect import Dialect, dialect_of
from llm_proxy.chat.event_stream import EventStream, EventTooLong
from llm_proxy.chat.http_client import IDLE_S, Call, HttpClient, Refused
from llm_proxy.chat.question import Answer, Part, Question, Usage
from llm_proxy.chat.target import Target
from llm_proxy.errors import LLMProxyError

_MOST_WORDINGS: Final = 3
# What llm-proxy says of an exchange, for --verbose.
_SHOWN_HEADERS: Final = ("llm-proxy-request-id", "server-timing", "cache-status")

# What bytes of others may raise when they are decoded.
_NOT_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

OnText = Callable[[str], None]
Trace = Callable[[str, object], None]  # what it is, and a JSON document


class ChatClient:
    """Use it as a context manager."""

    def __init__(
        self, target: Target, *, trace: Trace | None = None, idle_s: float = IDLE_S
    ) -> None:
        self._target = target
        self._tracer = trace
        self._dialect = dialect_of(target.api)
        self._http = HttpClient(target, idle_s=idle_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, exc, traceback)

    async def ask(self, question: Question, on_text: OnText) -> Answer:
        """Raises LLMProxyError or a kind of it; what came until then has been handed over."""
        for _ in range(_MOST_WORDINGS):
            try:
                return await self._ask(question, on_text)
            except Refused as refused:
                if refused.status == 400 and self._dialect.adapts_to(refused.problem.message):
                    continue
                raise refused.explained from refused
        raise LLMProxyError("the request was refused however it was worded")

    async def _ask(self, question: Question, on_text: OnText) -> Answer:
        call = Call(
            method="POST",
            urls=self._target.urls(self._dialect.path),
            headers=self._dialect.headers(self._target.token),
            model=question.model,
            body=self._dialect.body(question),
        )
        self._trace("request", lambda: call.body)
        reading = _Reading(self._target, self._dialect, on_text)
        async with self._http.answer_to(call) as answer:
            self._trace("answer", lambda: _head(answer))
            if _is_stream(answer):
                await reading.read_stream(answer)
            else:
                body = await self._http.read_all(answer)
                reading.read_whole(answer, body)
                self._trace("body", lambda: msgspec.Raw(body))
        return reading.answer()

    def _trace(self, name: str, document: Callable[[], object]) -> None:
        if self._tracer is not None:
            self._tracer(name, document())


class _Reading:
    """One answer as it comes in."""

    def __init__(self, target: Target, dialect: Dialect, on_text: OnText) -> None:
        self._target = target
        self._dialect = dialect
        self._on_text = on_text
        self._started = time.monotonic()
        self._first_text_s: float | None = None
        self._usage = Usage()
        self._finish: str | None = None
        self._has_ended = False

    async def read_stream(self, answer: httpx.Response) -> None:
        """Until the API's own end: some servers keep the connection open behind it."""
        events = EventStream()
        try:
            async for piece in answer.aiter_bytes():
                for data in events.feed(piece):
                    self._take_event(answer, data)
                if self._has_ended:
                    return
            for data in events.finish():
                self._take_last(data)
        except EventTooLong as exc:
            raise failures.not_understood(str(answer.url), "an event without an end") from exc
        if not self._has_ended and self._finish is None:
            raise failures.broken_off()

    def read_whole(self, answer: httpx.Response, body: bytes) -> None:
        """Also of a server that was asked for a stream and doesn't make any."""
        try:
            part = self._dialect.whole(body)
        except _NOT_JSON as exc:
            raise failures.not_understood(str(answer.url), str(exc)) from exc
        self._take(part, at=None)

    def answer(self) -> Answer:
        return Answer(
            usage=self._usage,
            finish=self._finish,
            first_text_s=self._first_text_s,
            total_s=time.monotonic() - self._started,
        )

    def _take_event(self, answer: httpx.Response, data: bytes) -> None:
        if self._has_ended:
            return
        try:
            part = self._dialect.part(data)
        except _NOT_JSON as exc:
            raise failures.not_understood(str(answer.url), str(exc)) from exc
        self._take(part, at=time.monotonic() - self._started)

    def _take_last(self, data: bytes) -> None:
        """What had no blank line behind it, and so may be a part of an event only."""
        try:
            part = self._dialect.part(data)
        except _NOT_JSON as exc:
            raise failures.broken_off() from exc
        self._take(part, at=time.monotonic() - self._started)

    def _take(self, part: Part, *, at: float | None) -> None:
        if part.failure is not None:
            raise failures.gave_up(self._target.hide_token(part.failure))
        self._usage = self._usage.merged(part.usage)
        self._finish = part.finish or self._finish
        self._has_ended = part.is_end
        if part.text:
            if self._first_text_s is None:
                self._first_text_s = at
            self._on_text(part.text)


def _is_stream(answer: httpx.Response) -> bool:
    kind: str = answer.headers.get("content-type", "")
    return kind.lower().startswith("text/event-stream")


def _head(answer: httpx.Response) -> dict[str, object]:
    shown = {name: answer.headers[name] for name in _SHOWN_HEADERS if name in answer.headers}
    return {"url": str(answer.url), "status": answer.status_code, **shown}
