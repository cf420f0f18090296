"""Statements with `?` for drivers that want `%s`."""

from __future__ import annotations

from functools import lru_cache

_QUOTES = "'\"`"


@lru_cache(maxsize=512)
def with_percent_s(statement: str) -> str:
    """A `?` inside quotes stays; every `%` is doubled, because these drivers halve them."""
    parts = []
    quote = ""
    for char in statement:
        if quote:
            quote = "" if char == quote else quote
        elif char in _QUOTES:
            quote = char
        elif char == "?":
            parts.append("%s")
            continue
        parts.append("%%" if char == "%" else char)
    return "".join(parts)
