"""Lines at the end of a terminal that change: only those that differ are written anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from rich.cells import cell_len

_COLOURS_OR_CHARACTER: Final = re.compile(r"\x1b\[[0-9;]*m|.", re.DOTALL)
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_PLAIN: Final = "\x1b[0m"
_END_OF_LINE = "\x1b[K\n"
_END_OF_SCREEN = "\x1b[J"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class LiveLines:
    """The cursor rests below the last line."""

    def __init__(self, write: Callable[[str], object]) -> None:
        """`write` is called once for every change, so that a terminal shows no half of it."""
        self._write = write
        self._shown: list[str] = []
        self._width = 0

    def show(self, done: Sequence[str], live: Sequence[str], *, width: int) -> None:
        """`done` stays for good, above `live`, which replaces what was live before. What is live
        is narrower than the terminal; done lines that aren't are left to it to wrap, so that it
        copies them as one."""
        lines = [*done, *live]
        same = self._common(lines) if width == self._width else 0
        stale = self._shown[same:]
        rows = len(stale) if width == self._width else sum(_rows(line, width) for line in stale)
        written = f"\r\x1b[{rows}A" if rows else ""
        wide = any(cells(line) >= width for line in done[same:])
        if wide or (width != self._width and rows):
            written += _END_OF_SCREEN
        # Behind a line that fills its row the rest of the line is its last character.
        end = "\n" if wide else _END_OF_LINE
        written += "".join(line + end for line in lines[same:])
        if len(lines) < len(self._shown):
            written += _END_OF_SCREEN
        self._shown, self._width = list(live), width
        if written:
            self._write(written)

    def _common(self, lines: Sequence[str]) -> int:
        count = 0
        for old, new in zip(self._shown, lines, strict=False):
            if old != new:
                break
            count += 1
        return count


def cells(line: str) -> int:
    return cell_len(_COLOURS.sub("", line))


def fold(line: str, width: int) -> list[str]:
    """Its rows, none of them wider, each complete in itself with its colours."""
    if cells(line) <= width:
        return [line]
    rows, row, taken, colours = [], "", 0, ""
    for piece in _COLOURS_OR_CHARACTER.findall(line):
        if len(piece) > 1:
            colours = "" if piece == _PLAIN else piece
        elif taken and taken + cell_len(piece) > width:
            rows.append(row + _PLAIN if colours else row)
            row, taken = colours, 0
        row += piece
        taken += cell_len(piece) if len(piece) == 1 else 0
    return [*rows, row]


def _rows(line: str, width: int) -> int:
    """Of a line that was written when the terminal was wider, perhaps."""
    return max(1, -(-cells(line) // max(width, 1)))
