"""Headings, lines and tables on a console, or as plain text in a pipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from rich.cells import chop_cells
from rich.console import Console
from rich.text import Text

from llm_proxy.benchmark.text_table import Cell, table_lines

_WIDE: Final = 100  # columns from which tables show more
_MOST: Final = 120
_FEWEST: Final = 12  # what is narrower breaks the lines itself
_INDENT: Final = 2
# A letter for a letter, so that styles stay where they are.
_ASCII: Final = str.maketrans("µ–—…·×≤≥━", "u--.-x<>=")


# Blanks that no line may end at, and what stands for them while lines are broken.
_FIGURE: Final = re.compile(r"(?<=\d) (?=[µm]?s\b|%)|(?<=\bp) (?=[=<] )|(?<= [=<]) (?=\d)")
_GLUE: Final = "\ue000"


class Page:
    """`has_blocks`: bars and marks are drawn; a log file gets letters in their place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._has_unicode = has_unicode(console)
        self.has_blocks = console.is_terminal and self._has_unicode
        self.is_wide = console.width >= _WIDE
        self.width = max(min(console.width, _MOST), _FEWEST) - _INDENT

    def blank(self) -> None:
        self._print(Text())

    def heading(self, text: str) -> None:
        """Not wrapped at words, that a long URL stands in one piece as far as it can."""
        self.blank()
        for line in chop_cells(text, self.width + _INDENT):
            self._print(Text(line, style="bold"))

    def line(self, text: Cell, *, style: str = "", hanging: int = 0) -> None:
        """Wrapped; what follows the first line stands `hanging` columns further right."""
        whole = Text(text, style=style) if isinstance(text, str) else text.copy()
        whole.plain = _FIGURE.sub(_GLUE, whole.plain)
        for i, part in enumerate(whole.wrap(self._console, self.width - hanging)):
            part.plain = part.plain.replace(_GLUE, " ")
            self._print(_indented(part, hanging if i else 0))

    def verbatim(self, text: str, *, style: str = "") -> None:
        """Never broken here, so that what is copied from a terminal is what was printed."""
        self._print(_indented(Text(text, style=style), 0))

    def table(
        self, rows: Iterable[Sequence[Cell]], aligns: str, *, head: Sequence[str] = ()
    ) -> None:
        """See `table_lines`; `head` are the names of the columns, where there are rows."""
        cells = list(rows)
        if head and cells:
            cells.insert(0, [Text(name, style="dim") for name in head])
        lines = table_lines(cells, aligns=aligns, width=self.width, console=self._console)
        for line in lines:
            self._print(_indented(line, 0))

    def mark(self, passed: bool) -> str:
        if self.has_blocks:
            return "✓" if passed else "✗"
        return "ok" if passed else "FAIL"

    def _print(self, text: Text) -> None:
        text.rstrip()
        make_printable(text, has_unicode=self._has_unicode)
        self._console.print(text, soft_wrap=True)


def has_unicode(console: Console) -> bool:
    return console.encoding.replace("-", "") == "utf8"


def make_printable(text: Text, *, has_unicode: bool) -> None:
    """What a server or a file said must not move the cursor or recolour the terminal."""
    plain = "".join(char if char.isprintable() else "?" for char in text.plain)
    if not has_unicode:
        plain = plain.translate(_ASCII).encode("ascii", "replace").decode()
    text.plain = plain


def _indented(text: Text, columns: int) -> Text:
    return Text(" " * (_INDENT + columns)).append_text(text)
