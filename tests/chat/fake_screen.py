"""A screen that remembers, and clients that answer as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llm_proxy.chat.question import Answer, Question, Usage
from llm_proxy.errors import LLMProxyError


class FakeScreen:
    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []
        self.tables: list[Sequence[tuple[str, str]]] = []

    @contextmanager
    def answer(self) -> Iterator[FakeScreen]:
        yield self

    def add(self, text: str) -> None:
        self.shown.append(("answer", text))

    def figures(self, line: str) -> None:
        self.shown.append(("figures", line))

    def tell(self, line: str) -> None:
        self.shown.append(("tell", line))

    def fail(self, line: str) -> None:
        self.shown.append(("fail", line))

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        self.tables.append(rows)

    def last(self, kind: str) -> str:
        return next(text for name, text in reversed(self.shown) if name == kind)


class FakeClient:
    """Answers with what is queued; a failure is raised after the text before it."""

    def __init__(self, *replies: str | LLMProxyError) -> None:
        self.replies = list(replies)
        self.questions: list[Question] = []

    async def ask(self, question: Question, on_text: Callable[[str], None]) -> Answer:
        self.questions.append(question)
        reply = self.replies.pop(0)
        if isinstance(reply, LLMProxyError):
            on_text("half an ")
            raise reply
        if reply:
            on_text(reply)
        usage = Usage(tokens_in=3, tokens_out=2)
        return Answer(usage=usage, finish="stop", first_text_s=0.5, total_s=1.0)
