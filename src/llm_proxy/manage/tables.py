"""Answers for people: a table on a terminal, aligned text in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

_FIRST_WIDTH = 36  # a UUID is of use only when whole


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """The first column is never cut."""
    cells = [[_shown(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, cells)
    else:
        _print_aligned([[column.upper() for column in columns], *cells])


def print_details(fields: Sequence[tuple[str, object]]) -> None:
    """One object, a line for each of its fields."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name + ':':<{width + 1}}  {_shown(value)}".rstrip())


def _print_rich(columns: Sequence[str], cells: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        if number == 0:
            table.add_column(column, no_wrap=True, min_width=_FIRST_WIDTH)
        else:
            table.add_column(column, no_wrap=True, overflow="ellipsis")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def _print_aligned(cells: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")
    # What a server sent must not move the cursor or recolour the terminal.
    return "".join(char if char.isprintable() else "�" for char in str(value)) or "-"
