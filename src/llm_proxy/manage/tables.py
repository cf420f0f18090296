"""Answers for people: a table on a terminal, aligned text in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LEAST_NAME = 8  # columns that stay for the name on a narrow terminal


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """On a terminal the second column, the name, is cut when the line would be too long."""
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
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    widths = _widths([list(columns), *cells])
    if len(widths) > 1:
        others = sum(widths) - widths[1] + 2 * len(widths)
        widths[1] = min(widths[1], max(console.width - others, _LEAST_NAME))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width, no_wrap=True, overflow="ellipsis")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_aligned(cells: list[list[str]]) -> None:
    widths = _widths(cells)
    for row in cells:
        line = "  ".join(
            set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)
        )
        print(line.rstrip())


def _widths(cells: list[list[str]]) -> list[int]:
    return [max(cell_len(cell) for cell in column) for column in zip(*cells, strict=True)]


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")
    # What a server sent must not move the cursor or recolour the terminal.
    return "".join(char if char.isprintable() else "�" for char in str(value)) or "-"
