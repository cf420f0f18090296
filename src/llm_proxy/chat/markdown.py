"""Markdown for terminals of either background: no colour of a background, no bright colours."""

from __future__ import annotations

import re
from typing import ClassVar, Final, Self

from pygments.token import Comment, Error, Generic, Keyword, Name, Number, Operator, String
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, HorizontalRule, Markdown, MarkdownElement
from rich.rule import Rule
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text
from rich.theme import Theme

from llm_proxy.chat.blocks import DEEPEST, Token, markdown_parser

THEME: Final = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold italic",
        "markdown.h4": "italic",
        "markdown.h5": "italic",
        "markdown.h6": "italic dim",
        "markdown.h7": "italic dim",
        "markdown.code": "cyan",
        "markdown.code_block": "none",
        "markdown.kbd": "bold",
        "markdown.hr": "dim",
        "markdown.list": "none",
        "markdown.item.bullet": "bold",
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
    """Between two faint lines, from the first column on and each line whole: so it can be copied.
    Within lists and quotes, where a margin is in between, lines are wrapped."""

    is_whole = False

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> Self:
        code = cls(token.info.partition(" ")[0] or "text", "")
        code.is_whole = token.level == 0
        return code

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        named = "" if self.lexer_name == "text" else self.lexer_name
        yield _line(named, options.max_width)
        code = str(self.text).rstrip("\n")
        syntax = Syntax(code, self.lexer_name, theme=_CODE, word_wrap=True, background_color=None)
        if self.is_whole:
            text = syntax.highlight(code.expandtabs(syntax.tab_size))
            text.remove_suffix("\n")
            for line in text.split(allow_blank=True):
                yield from line.render(console, end="\n")
        else:
            yield syntax
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

    @property
    def is_too_deep(self) -> bool:
        """Nothing would be left of the line for what is inside, and some of it isn't parsed."""
        return any(token.level >= DEEPEST for token in self.parsed)


def markdown_lines(console: Console, text: str, width: int) -> list[str]:
    """The lines of some blocks, each complete in itself with its colours; those of code may be
    wider."""
    markdown = ChatMarkdown(text)
    with console.capture() as capture:
        console.print(Text(text) if markdown.is_too_deep else markdown, width=width, crop=False)
    lines = [line.rstrip(" ") for line in capture.get().split("\n")]
    while lines and _BLANK.fullmatch(lines[-1]):
        lines.pop()
    while lines and _BLANK.fullmatch(lines[0]):
        lines.pop(0)
    return lines
