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
        self._goes_on: set[int] = set()  # rows that the terminal wrapped

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
                self._print(plain)
        return len(text)

    def _print(self, plain: str) -> None:
        """Behind the last column it waits for what comes next before it goes on below."""
        while plain:
            if self.column == self.width:
                self._goes_on.add(self.row)
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            piece, plain = plain[: self.width - self.column], plain[self.width - self.column :]
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + piece + line[self.column + len(piece) :]
            self.column += len(piece)

    def _control(self, count: str, letter: str) -> None:
        top = max(0, len(self.lines) - self.height)
        if letter == "A":
            self.row -= int(count)
            assert self.row >= top, "what has scrolled away can't be reached"
        elif letter == "K":
            assert self.column < self.width, "the last character of a full line is erased"
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif letter == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
            self._goes_on = {row for row in self._goes_on if row < self.row}
        elif letter in "hl":
            self.has_cursor = letter == "h"
        else:
            assert letter == "m", letter

    @property
    def text(self) -> str:
        """As it is copied: rows that the terminal wrapped are one line."""
        ends = ("" if row in self._goes_on else "\n" for row in range(len(self.lines)))
        whole = "".join(line + end for line, end in zip(self.lines, ends, strict=True))
        return "\n".join(line.rstrip() for line in whole.split("\n")[:-1])
