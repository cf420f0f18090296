"""Lines at the end of a terminal that change: only those that differ are written anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.control import strip_control_codes
from rich.text import Text

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
        """`done` stays for good, above `live`, which replaces what was live before."""
        lines = [*done, *live]
        same = self._common(lines) if width == self._width else 0
        stale = self._shown[same:]
        rows = len(stale) if width == self._width else sum(_rows(line, width) for line in stale)
        written = f"\r\x1b[{rows}A" if rows else ""
        if width != self._width and rows:
            written += _END_OF_SCREEN
        written += "".join(line + _END_OF_LINE for line in lines[same:])
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


def _rows(line: str, width: int) -> int:
    """Of a line that was written when the terminal was wider, perhaps."""
    cells = cell_len(strip_control_codes(Text.from_ansi(line).plain))
    return max(1, -(-cells // max(width, 1)))
