"""Reading prompts: what was said in messages of either API, and how many tokens that was."""

from __future__ import annotations

import msgspec

from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_text import count_tokens


class Part(msgspec.Struct):
    """A piece of a message; one that isn't text counts as one token."""

    type: str
    text: str | None = None


Content = str | list[Part] | None


class Message(msgspec.Struct):
    role: str = "user"
    content: Content = None
    type: str = "message"


class Prompt(msgspec.Struct, frozen=True):
    last: str  # what was said last
    tokens: int


def text_of(content: Content) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return " ".join(part.text or f"[{part.type}]" for part in content)


def read_prompt(messages: list[Message], *, system: Content = None) -> Prompt:
    """Raises Refused when there is no message."""
    if not messages:
        raise Refused(400, "messages must have at least one message.", param="messages")
    texts = [text_of(message.content) for message in messages]
    tokens = sum(map(count_tokens, texts)) + count_tokens(text_of(system))
    return Prompt(texts[-1], tokens)


def check_model(model: str) -> None:
    """Raises Refused for the models that are there to be missing: `no-such-…`."""
    if not model:
        raise Refused(400, "you must provide a model parameter", param="model")
    if model.startswith("no-such-"):
        raise Refused(
            404,
            f"The model `{model[:100]}` does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )


def check_limit(limit: int | None, name: str) -> None:
    """Raises Refused when an answer may not have a single token."""
    if limit is not None and limit < 1:
        raise Refused(400, f"{name} must be at least 1, not {limit}.", param=name)


def created_at(identity: str) -> int:
    """A time in Unix seconds that belongs to the request, not to the clock."""
    return 1_700_000_000 + int(identity[:6], 16)
