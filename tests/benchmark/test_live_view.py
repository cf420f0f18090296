"""The view of a run under way, by what reaches the terminal."""

from __future__ import annotations

import errno
import io
import re
import sys
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from llm_proxy.benchmark.live import Live
from llm_proxy.benchmark.live_view import LiveView
from tests.benchmark.printed import make_console, text_of

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def _live(**changes: Any) -> Live:
    fields: dict[str, Any] = {
        "elapsed_s": 5.0,
        "requests": 24_060,
        "errors": 0,
        "rate": 4812.0,
        "p50_ms": 1.92,
        "p99_ms": 4.31,
        "in_flight": 10,
        "rates": (4000.0, 5000.0),
    }
    return Live(**(fields | changes))


def _view(console: Console, **changes: Any) -> LiveView:
    """Its clock stands still."""
    return LiveView(console, **({"title": "http://host"} | changes), clock=lambda: 1000.0)


def _shown(
    live: Live,
    *,
    width: int = 80,
    encoding: str = "utf-8",
    title: str = "http://host",
    **totals: Any,
) -> list[str]:
    """The lines of the picture of it."""
    console = make_console(width=width, is_terminal=True, encoding=encoding)
    with _view(console, title=title) as view:
        view.phase("running", **({"total_s": 20.0} | totals))
        before = len(text_of(console))
        view.update(live)
        return _plain(text_of(console)[before:])


def _plain(text: str) -> list[str]:
    return ESCAPE.sub("", text).replace("\r", "").strip().splitlines()


def test_it_shows_how_far_and_how_fast() -> None:
    title, progress, rate, latency, requests = _shown(_live())
    assert title == "http://host"
    assert progress.startswith("running") and progress.endswith("25%  15 s left")
    assert rate.split()[:2] == ["rate", "4,810/s"] and "▇" in rate
    assert latency.split() == ["latency", "p50", "1.92", "ms", "p99", "4.31", "ms"]
    assert requests == "requests    24,060   none failed   10 in flight"


def test_the_direct_side_and_first_tokens_have_lines_when_there_are_any() -> None:
    lines = _shown(_live(direct_p50_ms=1.8, direct_p99_ms=4.1, ttft_p50_ms=0.0042))
    assert lines[4].split() == ["direct", "p50", "1.80", "ms", "p99", "4.10", "ms"]
    assert lines[5].split() == ["1st", "token", "p50", "4.20", "µs"]


def test_errors_are_counted() -> None:
    assert "1,200 failed" in _shown(_live(errors=1200))[-1]


@pytest.mark.parametrize(
    ("totals", "end"),
    [
        ({"total_s": 3605.0 * 2}, "  0%  2 h 0 min left"),
        ({"total_s": 125.0}, "  4%  2 min 0 s left"),
        ({"total_s": None, "total_requests": 48_120}, " 50%  5 s left"),
        ({"total_s": 10.0, "total_requests": 10**9}, " 50%  5 s left"),
        ({"total_s": 1.0}, "100%  0 s left"),
        ({"total_s": None}, "5 s"),
    ],
)
def test_the_time_left_is_told_where_it_is_known(totals: dict[str, Any], end: str) -> None:
    assert _shown(_live(), **totals)[1].endswith(end)


def test_a_count_without_a_rate_tells_no_time() -> None:
    lines = _shown(_live(rate=0.0, requests=0), total_s=None, total_requests=100)
    assert lines[1].endswith("0%")


def test_each_phase_has_its_own_totals() -> None:
    console = make_console(is_terminal=True)
    with _view(console) as view:
        view.phase("warm-up", total_s=10.0)
        view.update(_live())
        assert " 50%  5 s left" in _plain(text_of(console))[-4]
        view.phase("run 2 of 5", total_s=20.0)
        view.update(_live())
        assert " 25%  15 s left" in _plain(text_of(console))[-4]
    assert "run 2 of 5" in text_of(console)


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_long_titles_keep_both_ends_and_every_line_fits(width: int) -> None:
    title = "POST http://host/" + "path/" * 60 + "日本語/end"
    lines = _shown(_live(rates=(5.0,) * 600), width=width, title=title)
    assert max(map(cell_len, lines)) < width
    assert lines[0].startswith("POST http:") and lines[0].endswith("/end")


def test_a_title_cannot_move_the_cursor() -> None:
    console = make_console(is_terminal=True)
    with _view(console, title="a\x1b[5mb\x07") as view:
        view.update(_live())
    assert "\x1b[5m" not in text_of(console) and "\x07" not in text_of(console)


def test_a_terminal_without_the_letters_gets_others() -> None:
    lines = _shown(_live(p50_ms=0.004), encoding="ascii")
    assert "=====" in lines[1] and "....." in lines[1]
    assert "4.00 us" in lines[3]


def test_it_is_drawn_four_times_a_second_however_often_it_is_told() -> None:
    console = make_console(is_terminal=True)
    times = iter(range(10_000))
    view = LiveView(
        console,
        title="",
        clock=lambda: next(times) / 1000,  # a call takes a millisecond
    )
    with view:
        for _ in range(1000):
            view.update(_live())
    assert 3 <= text_of(console).count("in flight") <= 6


def test_nothing_of_it_is_left_and_the_cursor_is_shown() -> None:
    console = make_console(is_terminal=True)
    with pytest.raises(KeyboardInterrupt), _view(console) as view:
        view.update(_live())
        raise KeyboardInterrupt
    text = text_of(console)
    assert text.rindex(SHOW) > text.rindex(HIDE)
    erased = text.rpartition("in flight")[2]
    assert erased.count("\x1b[1A\x1b[2K") == 5  # as many lines as there were
    view.update(_live())  # too late to be seen
    assert text_of(console) == text


def test_a_pipe_stays_quiet() -> None:
    console = make_console()
    with _view(console) as view:
        view.phase("running")
        view.update(_live())
    assert text_of(console) == ""


def test_stdout_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console(is_terminal=True)
    with _view(console):
        sys.stdout.write("a result")
    assert capsys.readouterr().out == "a result"
    assert "a result" not in text_of(console)


def test_terminal_that_is_closed_costs_the_view_and_not_the_run() -> None:
    class Closed(io.StringIO):
        is_gone = False

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            if self.is_gone:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    file = Closed()
    view = _view(Console(file=file, force_terminal=True, width=80, _environ={}))
    with view:
        view.phase("running")
        shown = len(file.getvalue())
        file.is_gone = True
        view.phase("run 2 of 2")
        view.update(_live())
    assert len(file.getvalue()) == shown


@pytest.mark.parametrize("width", [0, 1, 2])
def test_a_terminal_without_columns_is_no_trap(width: int) -> None:
    _shown(_live(), width=width)
