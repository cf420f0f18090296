"""What an error answer says, in the words of llm-proxy, OpenAI, Anthropic or a stranger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from llm_proxy.chat.plain_text import clean_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    message: str  # one line of any length without control characters; may be empty
    code: str = ""

    @property
    def is_of_the_path(self) -> bool:
        """llm-proxy's own word for: not here, whatever the model."""
        return self.code == "endpoint_not_allowed"


def read_problem(body: bytes) -> Problem:
    """Of the body of an error answer, whatever it is."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Problem(message=_first_words(body))
    if isinstance(document, list) and document:  # Google's, where it speaks as OpenAI does
        document = document[0]
    error = document.get("error", document) if isinstance(document, dict) else document
    code = error.get("code") or error.get("type") if isinstance(error, dict) else ""
    return Problem(message=problem_text(error), code=code if isinstance(code, str) else "")


def problem_text(error: Any) -> str:
    """Of the error in an answer or in an event of a stream."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error.get("type")
    return clean_line(error).rstrip(".") if isinstance(error, str) else ""


def _first_words(body: bytes) -> str:
    """A line of text may explain something, a page of HTML doesn't."""
    text = body[:4096].decode("utf-8", "replace").strip()
    return "" if text.startswith("<") else clean_line(text).rstrip(".")
