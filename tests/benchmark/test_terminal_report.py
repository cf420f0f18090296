"""The whole report: its order, its width, and what it leaves out."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from llm_proxy.benchmark.report import Report
from llm_proxy.benchmark.terminal_report import print_report
from tests.benchmark.printed import make_console, text_of
from tests.benchmark.reports import (
    make_comparison,
    make_find_max,
    make_frontier,
    make_report,
    make_rig,
    make_runs,
    make_stream_report,
)

HEADINGS = (
    "The highest rate that met p99<=50ms",
    "Latency",
    "Distribution of the latency",
    "Over time",
    "Streams",
    "Answers",
    "Where the time went",
    "The target's processes",
    "Repeats",
    "Compared with old.json, of 2026-02-01T12:00:00Z",
    "Limits",
    "Load generator",
)
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def _everything() -> Report:
    return make_stream_report(
        runs=make_runs(),
        find_max=make_find_max(),
        frontier=make_frontier(),
        comparison=make_comparison(),
        interrupted=True,
        rig=make_rig(verdict="rig-bound", reasons=("A generator process used 97 % of a core.",)),
    )


def _nothing() -> Report:
    fields = ("latency_ms", "service_ms", "first_byte_ms", "histogram", "server_timing", "direct")
    others = ("added_latency_ms", "fidelity", "process")
    return make_report(
        **dict.fromkeys(fields + others), requests=0, errors=0, series=(), spread={}, checks=()
    )


def _printed(report: Report, *, width: int = 80, is_terminal: bool = False) -> str:
    console = make_console(width=width, is_terminal=is_terminal)
    print_report(report, console)
    return text_of(console)


def test_sections_come_in_order() -> None:
    lines = _printed(_everything()).splitlines()
    assert [line for line in lines if line in HEADINGS] == list(HEADINGS)


def test_sections_that_were_not_measured_are_absent() -> None:
    lines = _printed(_nothing()).splitlines()
    assert [line for line in lines if line in HEADINGS] == ["Load generator"]


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("make", [make_report, make_stream_report, _everything, _nothing])
def test_every_line_fits(make: Callable[[], Report], width: int, is_terminal: bool) -> None:
    text = ESCAPE.sub("", _printed(make(), width=width, is_terminal=is_terminal))
    assert max(map(cell_len, text.splitlines())) <= width


def test_a_pipe_gets_plain_text_without_ends_of_blanks() -> None:
    text = _printed(_everything())
    assert "\x1b" not in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_a_terminal_gets_no_colour_that_vanishes_on_light_or_dark() -> None:
    codes = set(re.findall(r"\x1b\[([0-9;]*)m", _printed(_everything(), is_terminal=True)))
    used = {code for group in codes for code in group.split(";")}
    assert used <= {"0", "1", "2", "31", "32", "35", "36"}
    assert {"31", "36"} <= used


@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_no_terminal_is_too_narrow(width: int) -> None:
    console = make_console(width=width, is_terminal=True)
    print_report(_everything(), console)
    letters = re.sub(r"\s", "", ESCAPE.sub("", text_of(console)))
    assert "Loadgenerator" in letters
