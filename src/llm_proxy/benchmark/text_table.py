"""Columns of text that stand in line, whatever their styles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

Cell = str | Text
_GAP: Final = 2
_LEAST_WRAPPED: Final = 16


def table_lines(
    rows: Sequence[Sequence[Cell]], *, aligns: str, width: int, console: Console
) -> list[Text]:
    """`aligns` has a letter a column: l(eft), r(ight), or w for a last one that is wrapped."""
    cells = [[_text(cell) for cell in row] for row in rows]
    columns = aligns.rstrip("w")
    widths = [max((row[i].cell_len for row in cells), default=0) for i in range(len(columns))]
    gap = _GAP if sum(widths) + _GAP * (len(widths) - 1) <= width else 1
    lines = []
    for row in cells:
        line = Text(" " * gap).join(
            _placed(cell, size, align)
            for cell, size, align in zip(row, widths, columns, strict=False)
        )
        if aligns.endswith("w"):
            left = sum(widths) + _GAP * len(widths)
            lines += _with_wrapped(line, row[-1], left=left, width=width, console=console)
        else:
            line.rstrip()
            lines.append(line)
    return lines


def _with_wrapped(line: Text, last: Text, *, left: int, width: int, console: Console) -> list[Text]:
    parts = last.wrap(console, max(width - left, _LEAST_WRAPPED)) or [Text()]
    lines = []
    for part in parts:
        line.pad_right(left - line.cell_len)
        line.append_text(part)
        line.rstrip()
        lines.append(line)
        line = Text()
    return lines


def _placed(cell: Text, size: int, align: str) -> Text:
    placed = cell.copy()
    missing = size - cell.cell_len
    if align == "r":
        placed.pad_left(missing)
    else:
        placed.pad_right(missing)
    return placed


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)
