"""As much of a terminal as the live view uses: what is on the screen, and above it."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\x1b\[(\??\d*)([A-Za-z])|(\n|\r)|([^\x1b\n\r]+)")


class ScreenEmulator:
    def __init__(self, *, width: int = 80, height: int = 24) -> None:
        self.width = width
        self.height = height
        self.lines = [""]
        self.row = 0
        self.column = 0
        self.has_cursor = True

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def write(self, text: str) -> int:
        assert _TOKEN.sub("", text) == ""
        for count, letter, end, plain in _TOKEN.findall(text):
            if letter:
                self._control(count, letter)
            elif end == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif end == "\r":
                self.column = 0
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = (
                    line[: self.column] + plain + line[self.column + len(plain) :]
                )
                self.column += len(plain)
                assert self.column < self.width, "a full line leaves the cursor in two places"
        return len(text)

    def _control(self, count: str, letter: str) -> None:
        top = max(0, len(self.lines) - self.height)
        if letter == "A":
            self.row -= int(count)
            assert self.row >= top, "what has scrolled away can't be reached"
        elif letter == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif letter == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif letter in "hl":
            self.has_cursor = letter == "h"
        else:
            assert letter == "m", letter

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)
