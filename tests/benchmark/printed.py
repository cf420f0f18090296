"""A report as it is printed, for the tests of what prints it."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.cells import cell_len
from rich.console import Console

from llm_proxy.benchmark.report import Report
from llm_proxy.benchmark.terminal_page import Page

Show = Callable[[Page, Report], None]


def make_console(*, width: int = 80, is_terminal: bool = False, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(
        file=file,
        width=width,
        force_terminal=is_terminal,
        color_system="standard" if is_terminal else None,
        _environ={"TERM": "xterm-256color"},
    )


def text_of(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.TextIOWrapper) and isinstance(file.buffer, io.BytesIO)
    file.flush()
    return file.buffer.getvalue().decode(file.encoding)


def printed(
    show: Show, report: Report, *, width: int = 80, is_terminal: bool = False, is_wide: bool = False
) -> str:
    """One section; its lines fit."""
    console = make_console(width=120 if is_wide else width, is_terminal=is_terminal)
    show(Page(console), report)
    text = text_of(console)
    if not is_terminal:
        assert max(map(cell_len, text.splitlines()), default=0) <= console.width
    return text


def squeezed(text: str) -> str:
    """With single blanks, whatever the columns and where lines end."""
    return " ".join(text.split())
