"""An answer on a terminal, as Markdown, while it comes.

Finished blocks are printed for good and scroll away; only the last one is drawn again as it
grows, and of that no more than fits on the screen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console

from llm_proxy.chat.blocks import split_blocks
from llm_proxy.chat.live_lines import HIDE_CURSOR, SHOW_CURSOR, LiveLines, fold
from llm_proxy.chat.markdown import markdown_lines
from llm_proxy.chat.plain_text import PlainText

_INTERVAL_S: Final = 0.05
_MOST_WORK: Final = 5  # a drawing is followed by so many times its duration of rest
_WAITING: Final = "\x1b[2m…\x1b[0m"


class MarkdownView:
    """Use it as a context manager, on a running loop."""

    def __init__(self, console: Console, *, margin: str = "\n") -> None:
        """`margin` is written above and below."""
        self._console = console
        self._margin = margin
        self._lines = LiveLines(self._write)
        self._clean = PlainText()
        self._open = ""  # the blocks that aren't done
        self._done_lines = 0  # of the first open block: those that stay as they are
        self._is_first = True
        self._is_open = False
        self._timer: asyncio.TimerHandle | None = None
        self._drawn_at = 0.0
        self._rest_s = _INTERVAL_S

    def __enter__(self) -> Self:
        self._is_open = True
        self._write(HIDE_CURSOR + self._margin)
        self._lines.show([], [self._waiting], width=self._console.width)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._is_open = False
        self._open += self._clean.finish()
        try:
            self._draw(is_end=True)
        finally:
            self._write(SHOW_CURSOR if self._is_first else self._margin + SHOW_CURSOR)

    def add(self, text: str) -> None:
        self._open += self._clean.feed(text)
        if self._timer is None:
            wait = max(0.0, self._drawn_at + self._rest_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._draw_again)

    def above(self, show: Callable[[], object]) -> None:
        """Something that stays, above what is still drawn again."""
        if not self._is_open:
            show()
            return
        self._lines.show([], [], width=self._console.width)
        show()
        self._write(self._margin)
        self._draw()

    @property
    def _waiting(self) -> str:
        return "…" if self._console.no_color else _WAITING

    def _draw_again(self) -> None:
        self._timer = None
        started = time.monotonic()
        self._draw()
        self._drawn_at = time.monotonic()
        self._rest_s = max(_INTERVAL_S, _MOST_WORK * (self._drawn_at - started))

    def _draw(self, *, is_end: bool = False) -> None:
        width, height = self._console.size
        finished, unfinished = split_blocks(self._open)
        if is_end:
            finished, unfinished = [*finished, *unfinished], []
        done: list[str] = []
        for block in finished:
            done += self._rendered(block, width)[self._done_lines :]
            self._done_lines = 0
            self._is_first = self._is_first and not block.strip()
        self._open = "\n".join(unfinished)
        live = self._live(unfinished, width)
        rows = [fold(line, width - 1) for line in live]
        room = max(1, height - 2)
        excess = _excess([len(of_line) for of_line in rows], room)
        done += live[:excess]  # what has left the screen can't be drawn again
        self._done_lines += excess
        # The last may be higher than the screen: until it is done its end is shown.
        shown = [row for of_line in rows[excess:] for row in of_line][-room:]
        if not shown and self._is_first and not is_end:
            shown = [self._waiting]
        self._lines.show(done, shown, width=width)

    def _live(self, blocks: list[str], width: int) -> list[str]:
        lines: list[str] = []
        was_first = self._is_first
        for block in blocks:
            lines += self._rendered(block, width)
            self._is_first = self._is_first and not block.strip()
        self._is_first = was_first
        return lines[self._done_lines :]

    def _rendered(self, block: str, width: int) -> list[str]:
        """The last column stays free: a line that fills it leaves the cursor in two places."""
        lines = markdown_lines(self._console, block, width - 1)
        return lines if self._is_first or not lines else ["", *lines]

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


def _excess(rows: Sequence[int], room: int) -> int:
    """How many lines have to go for the others to find room; the last of the text may grow and
    stays, and below it, perhaps, the end of code."""
    left, count = sum(rows), 0
    for taken in rows[:-2]:
        if left <= room:
            break
        left -= taken
        count += 1
    return count
