"""What was said so far: pairs of a question and its answer, never half a pair."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_proxy.chat.question import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    asked: str
    said: str
    model: str
    was_stopped: bool = False  # by the person, so the answer has no end


@dataclass(slots=True, kw_only=True)
class Conversation:
    model: str
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def messages(self, following: str) -> list[Message]:
        """All of it, and what is asked next."""
        found = []
        for turn in self.turns:
            found += [Message("user", turn.asked), Message("assistant", turn.said)]
        return [*found, Message("user", following)]
