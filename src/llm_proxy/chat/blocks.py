"""Markdown that is still being written: which of its blocks can't change any more."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token as Token

DEEPEST: Final = 40  # quotes and lists in one another, a list counting twice; it is shown as text
_TELLING: Final = 5  # characters; until then a line may turn out to be of another block


@cache
def markdown_parser() -> MarkdownIt:
    """HTML is text here: a terminal shows none, and an answer may be about it."""
    options = {"html": False, "maxNesting": 2 * DEEPEST}
    return MarkdownIt("commonmark", options).enable("strikethrough").enable("table")


def split_blocks(text: str) -> tuple[list[str], list[str]]:
    """The blocks that are done because another one follows, and those that may still change."""
    lines = text.split("\n")
    starts = [
        token.map[0]
        for token in markdown_parser().parse(text)
        if token.level == 0 and token.map is not None and token.nesting >= 0
    ]
    bounds = [0, *starts[1:], len(lines)]
    blocks = ["\n".join(lines[a:b]) for a, b in pairwise(bounds)]
    is_unsure = starts[-1:] == [len(lines) - 1] and len(lines[-1]) < _TELLING
    done = max(0, len(blocks) - (2 if is_unsure else 1))
    return blocks[:done], blocks[done:]
