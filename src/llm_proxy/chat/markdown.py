"""Markdown for terminals of either background: no colour of a background, no bright colours."""

from __future__ import annotations

import re
from typing import ClassVar, Final

from pygments.token import Comment, Error, Generic, Keyword, Name, Number, Operator, String
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, HorizontalRule, Markdown, MarkdownElement
from rich.rule import Rule
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text
from rich.theme import Theme

from llm_proxy.chat.blocks import markdown_parser

THEME: Final = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold italic",
        "markdown.h4": "italic",
        "markdown.h5": "italic",
        "markdown.h6": "italic dim",
        "markdown.code": "cyan",
        "markdown.block_quote": "italic",
        "markdown.item.number": "bold",
        "markdown.link": "underline",
        "markdown.link_url": "dim",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)
_BLANK: Final = re.compile(r"(?:\x1b\[[0-9;]*m| )*")
_CODE: Final = ANSISyntaxTheme(
    {
        Comment: Style(dim=True, italic=True),
        Keyword: Style(color="magenta"),
        Operator.Word: Style(color="magenta"),
        Name.Builtin: Style(color="cyan"),
        Name.Class: Style(bold=True),
        Name.Function: Style(bold=True),
        Name.Decorator: Style(color="cyan"),
        Name.Tag: Style(color="magenta"),
        Name.Attribute: Style(color="cyan"),
        Number: Style(color="cyan"),
        String: Style(color="green"),
        Generic.Deleted: Style(color="red"),
        Generic.Inserted: Style(color="green"),
        Generic.Heading: Style(bold=True),
        Error: Style(),
    }
)


class _Code(CodeBlock):
    """Between two faint lines, from the first column on: so it can be copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        named = "" if self.lexer_name == "text" else self.lexer_name
        yield _line(named, options.max_width)
        code = str(self.text).rstrip("\n")
        yield Syntax(code, self.lexer_name, theme=_CODE, word_wrap=True, background_color=None)
        yield _line("", options.max_width)


class _Heading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


def _line(title: str, width: int) -> Text:
    begun = f"── {title} " if title else ""
    return Text((begun + "─" * width)[:width], style="dim", no_wrap=True, end="\n")


class _Rule(HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(style="dim", characters="─")


class ChatMarkdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
        "heading_open": _Heading,
        "hr": _Rule,
    }

    def __init__(self, text: str) -> None:
        # Links are written out: where one leads isn't for the answer to hide.
        super().__init__("", hyperlinks=False)
        self.markup = text
        self.parsed = markdown_parser().parse(text)


def markdown_lines(console: Console, text: str, width: int) -> list[str]:
    """The lines of some blocks, each complete in itself with its colours."""
    with console.capture() as capture:
        console.print(ChatMarkdown(text), width=width)
    lines = [line.rstrip(" ") for line in capture.get().split("\n")]
    while lines and _BLANK.fullmatch(lines[-1]):
        lines.pop()
    while lines and _BLANK.fullmatch(lines[0]):
        lines.pop(0)
    return lines
