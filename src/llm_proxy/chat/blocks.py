"""Markdown that is still being written: which of its blocks can't change any more."""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt


@cache
def markdown_parser() -> MarkdownIt:
    """HTML is text here: a terminal shows none, and an answer may be about it."""
    return MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")


def split_finished(text: str) -> tuple[list[str], str]:
    """The blocks that are followed by another one, and the rest, which may still grow."""
    starts = [
        token.map[0]
        for token in markdown_parser().parse(text)
        if token.level == 0 and token.map is not None and token.nesting >= 0
    ]
    if len(starts) < 2:
        return [], text
    lines = text.splitlines(keepends=True)
    ends = starts[1:]
    blocks = ["".join(lines[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    return blocks, "".join(lines[starts[-1] :])
