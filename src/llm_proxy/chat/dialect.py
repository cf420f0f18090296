"""How one API words questions and answers: what the client needs to know of it."""

from __future__ import annotations

from typing import Any, Protocol

from llm_proxy.chat.anthropic_dialect import AnthropicDialect
from llm_proxy.chat.openai_dialect import OpenAIDialect
from llm_proxy.chat.question import Api, Part, Question
from llm_proxy.secrets import Secret


class Dialect(Protocol):
    path: str  # of questions, after the version

    def headers(self, token: Secret) -> dict[str, str]:
        """What presents the token."""
        ...

    def body(self, question: Question) -> dict[str, Any]: ...

    def adapts_to(self, refusal: str) -> bool:
        """Whether the same question, worded anew after this 400, may be taken."""
        ...

    def part(self, data: bytes) -> Part:
        """One event of a stream. Raises msgspec.MsgspecError."""
        ...

    def whole(self, body: bytes) -> Part:
        """An answer that isn't a stream. Raises msgspec.MsgspecError."""
        ...


def dialect_of(api: Api) -> Dialect:
    """A new one: it learns from refusals."""
    return AnthropicDialect() if api == "anthropic" else OpenAIDialect()
