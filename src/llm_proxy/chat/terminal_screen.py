"""A session on a terminal: answers on stdout, everything else on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_proxy.chat.markdown import THEME
from llm_proxy.chat.markdown_view import MarkdownView
from llm_proxy.chat.plain_text import clean
from llm_proxy.chat.raw_view import RawView
from llm_proxy.chat.screen import AnswerView


class TerminalScreen:
    def __init__(self, out: TextIO, messages: TextIO, *, margin: str = "\n") -> None:
        """`margin` is what sets answers off from what is around them."""
        self._margin = margin
        self._file = out
        self._out = Console(file=out, theme=THEME, highlight=False)
        self._messages = Console(file=messages, highlight=False)
        self._drawn: MarkdownView | None = None

    def answer(self) -> AbstractContextManager[AnswerView]:
        if self._out.is_terminal and not self._out.is_dumb_terminal:
            self._drawn = MarkdownView(self._out, margin=self._margin)
            return self._drawn
        return RawView(self._file)

    def figures(self, line: str) -> None:
        self._print(Text(line, style="dim"))

    def tell(self, line: str) -> None:
        self._print(Text(clean(line)))

    def fail(self, line: str) -> None:
        self._print(Text.assemble(("Error:", "bold red"), " ", clean(line)))

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, value in rows:
            table.add_row(Text(name, style="bold"), Text(clean(value)))
        self._print(table)

    def trace(self, name: str, document: object) -> None:
        """For --verbose."""
        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
        line = Text(clean(f"{name}: {text}"), style="dim")
        if self._drawn is None:
            self._messages.print(line, soft_wrap=True)
        else:
            self._drawn.above(lambda: self._messages.print(line, soft_wrap=True))

    def _print(self, what: Text | Table) -> None:
        """With a blank line behind it, as everything has."""
        self._messages.print(what)
        self._messages.print()
