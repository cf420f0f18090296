"""What a person sees on the terminal while a run is under way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live as Screen
from rich.text import Text

from llm_proxy.benchmark.live import Live
from llm_proxy.benchmark.precision import format_ms, format_rate
from llm_proxy.benchmark.sparkline import sparkline
from llm_proxy.benchmark.terminal_page import has_unicode, make_printable

_EVERY_S: Final = 0.2  # callers come every 0.25 s: none of theirs is left out
_MOST: Final = 120  # columns
_LABEL: Final = 10
_NOTHING: Final = Live(
    elapsed_s=0.0, requests=0, errors=0, rate=0.0, p50_ms=None, p99_ms=None, in_flight=0
)


class LiveView:
    """A few lines that are redrawn four times a second and gone at the end; quiet in a pipe."""

    def __init__(
        self,
        console: Console,
        *,
        title: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`console` is one on stderr."""
        self._clock = clock
        self._console = console
        self._has_blocks = has_unicode(console)
        self._title = title
        self._total_s: float | None = None
        self._total_requests: int | None = None
        self._phase = ""
        self._live = _NOTHING
        self._drawn_at = -math.inf
        self._screen: Screen | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            # No thread of its own, and stdout is left alone: it may be a file.
            self._screen = Screen(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False
            )
            self._screen.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._screen is not None:
            with suppress(OSError):
                self._screen.stop()
            self._screen = None

    def phase(
        self, text: str, *, total_s: float | None = None, total_requests: int | None = None
    ) -> None:
        """What begins now, such as "warm-up" or "run 2 of 5", and how much of it there is."""
        self._phase = text
        self._total_s, self._total_requests = total_s, total_requests
        self._live = _NOTHING
        self._draw()
        self._drawn_at = -math.inf  # its first figures come at once

    def update(self, live: Live) -> None:
        """Cheap, however often it is called."""
        self._live = live
        if self._clock() - self._drawn_at >= _EVERY_S:
            self._draw()

    def _draw(self) -> None:
        if self._screen is None:
            return
        try:
            self._screen.update(self._lines(), refresh=True)
        except OSError:
            self._screen = None  # the terminal was closed: that costs the view, not the run
        self._drawn_at = self._clock()

    def _lines(self) -> Text:
        width = min(self._console.width, _MOST) - 1
        live = self._live
        lines = [
            _title(self._title, width),
            self._progress(width),
            _rate(live, width, has_blocks=self._has_blocks),
            _times("latency", live.p50_ms, live.p99_ms),
        ]
        if live.direct_p50_ms is not None:
            lines.append(_times("direct", live.direct_p50_ms, live.direct_p99_ms))
        if live.ttft_p50_ms is not None:
            lines.append(_times("1st token", live.ttft_p50_ms, None))
        lines.append(_counts(live))
        for line in lines:
            line.truncate(width)
            line.rstrip()
            make_printable(line, has_unicode=self._has_blocks)
        return Text("\n").join(lines)

    def _progress(self, width: int) -> Text:
        share = self._share()
        end = f"{self._live.elapsed_s:.0f} s" if share is None else f"{share:4.0%}  {self._left()}"
        name = set_cell_size(self._phase, max(_LABEL, cell_len(self._phase)) + 2)
        line = Text.assemble((name, "bold"))
        if share is not None:
            room = max(width - cell_len(name) - 24, 10)
            done = round(share * room)
            rest = "━" if self._has_blocks else "."
            line.append("━" * done, style="cyan").append(rest * (room - done), style="dim")
            line.append("  ")
        return line.append(end)

    def _share(self) -> float | None:
        """Of the run that is done; None: nobody knows how long it takes."""
        shares = []
        if self._total_s:
            shares.append(self._live.elapsed_s / self._total_s)
        if self._total_requests:
            shares.append(self._live.requests / self._total_requests)
        return min(max(shares), 1.0) if shares else None

    def _left(self) -> str:
        left = []
        if self._total_s:
            left.append(self._total_s - self._live.elapsed_s)
        if self._total_requests and self._live.rate > 0:
            left.append((self._total_requests - self._live.requests) / self._live.rate)
        return f"{_duration(max(min(left), 0.0))} left" if left else ""


def _title(text: str, width: int) -> Text:
    """Cut in its middle when it is too long: an URL's end tells more than its path."""
    if cell_len(text) > width:
        half = max((width - 1) // 2, 0)  # some terminals say that they are 0 columns wide
        end = text[len(text) - half :]
        while cell_len(end) > half:
            end = end[1:]
        text = f"{set_cell_size(text, half)}…{end}"
    return Text(text, style="dim")


def _rate(live: Live, width: int, *, has_blocks: bool) -> Text:
    rate = f"{format_rate(live.rate)}/s"
    line = _labelled("rate").append(f"{rate:<12}", style="bold")
    bars = sparkline(live.rates, width - line.cell_len, has_blocks=has_blocks)
    return line.append(bars, style="cyan")


def _times(name: str, p50: float | None, p99: float | None) -> Text:
    line = _labelled(name).append("p50 ", style="dim").append(f"{format_ms(p50):<9}", style="bold")
    if p99 is not None:
        line.append("p99 ", style="dim").append(format_ms(p99), style="bold")
    return line


def _counts(live: Live) -> Text:
    errors = f"{live.errors:,} failed" if live.errors else "none failed"
    return (
        _labelled("requests")
        .append(f"{live.requests:,}   ")
        .append(errors, style="bold red" if live.errors else "")
        .append(f"   {live.in_flight:,} in flight", style="dim")
    )


def _labelled(name: str) -> Text:
    return Text.assemble((f"{name:<{_LABEL}}  ", "dim"))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
