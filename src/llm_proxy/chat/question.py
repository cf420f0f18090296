"""What is asked of a model, and what came of it, whichever API it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Api = Literal["openai", "anthropic"]
Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    model: str
    messages: Sequence[Message]
    system: str | None = None
    temperature: float | None = None  # None: the model's own
    max_tokens: int | None = None  # None: as many as the model likes
    streams: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens; None for what the answer didn't tell."""

    tokens_in: int | None = None
    tokens_out: int | None = None

    def merged(self, later: Usage | None) -> Usage:
        if later is None:
            return self
        return Usage(
            tokens_in=self.tokens_in if later.tokens_in is None else later.tokens_in,
            tokens_out=self.tokens_out if later.tokens_out is None else later.tokens_out,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one event of a stream, or a whole answer, says."""

    text: str = ""
    usage: Usage | None = None
    finish: str | None = None  # the API's own word for why it ended
    is_end: bool = False
    failure: str | None = None  # the upstream gave up


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    usage: Usage
    finish: str | None
    first_text_s: float | None  # from sending; None when nothing was said or it came at once
    total_s: float

    @property
    def tokens_per_second(self) -> float | None:
        """Of a stream from its first text on: before that nothing was written."""
        spent = self.total_s - (self.first_text_s or 0.0)
        tokens = self.usage.tokens_out
        return None if not tokens or spent <= 0 else tokens / spent

    @property
    def was_cut(self) -> bool:
        return self.finish in ("length", "max_tokens", "model_context_window_exceeded")
