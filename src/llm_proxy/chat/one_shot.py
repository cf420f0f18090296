"""A question from a pipe: the answer, and nothing else."""

from __future__ import annotations

from typing import Final

from llm_proxy.chat.conversation import Conversation
from llm_proxy.chat.plain_text import clean_line
from llm_proxy.chat.question import Answer
from llm_proxy.chat.screen import Screen
from llm_proxy.chat.session import Asks, Manner
from llm_proxy.errors import LLMProxyError

LARGEST_QUESTION: Final = 32 << 20  # bytes


def decode_question(raw: bytes) -> str:
    """Raises LLMProxyError."""
    if len(raw) > LARGEST_QUESTION:
        raise LLMProxyError(f"the question on stdin is larger than {LARGEST_QUESTION >> 20} MiB")
    try:
        return raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError as exc:
        raise LLMProxyError(f"the question on stdin isn't UTF-8 at byte {exc.start}") from exc


async def ask_once(
    client: Asks, text: str, conversation: Conversation, manner: Manner, screen: Screen
) -> None:
    """Raises LLMProxyError, also after a part of the answer was shown and when there is none."""
    is_empty = True

    with screen.answer() as view:

        def add(said: str) -> None:
            nonlocal is_empty
            is_empty = False
            view.add(said)

        answer = await client.ask(manner.question(conversation, text), add)
    if is_empty:
        raise LLMProxyError(_why_empty(answer))


def _why_empty(answer: Answer) -> str:
    if answer.was_cut:
        return "the limit of tokens was reached before anything was said; raise --max-tokens"
    why = f" (it ended with {clean_line(answer.finish)})" if answer.finish else ""
    return f"the answer was empty{why}; try again, or ask another model"
