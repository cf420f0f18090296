"""The frontier, as printed."""

from __future__ import annotations

import pytest

from llm_proxy.benchmark.terminal_frontier import show_frontier
from tests.benchmark.printed import printed, squeezed
from tests.benchmark.reports import make_frontier, make_point, make_report


def test_every_limit_has_its_rate_and_a_bar() -> None:
    lines = printed(show_frontier, make_report(frontier=make_frontier())).splitlines()
    rows = [squeezed(line) for line in lines]
    assert "1 ms none - - not reached" in rows
    assert f"5 ms 1,000/s 1,000/s 4.50 ms {'#' * 10} confirmed" in rows
    assert f"10 ms 1,500/s 1,500/s 8.00 ms {'#' * 15} confirmed" in rows
    assert f"100 ms 2,000/s 2,000/s 71.0 ms {'#' * 20} not confirmed" in rows


def test_what_speaks_against_a_rate_is_said() -> None:
    text = squeezed(printed(show_frontier, make_report(frontier=make_frontier())))
    assert "Confirmed: the rates of 2 of 4 limits" in text
    assert "- 1 ms: Noise: higher kept it" in text
    assert "- 5 ms: Confirmed: 1,000/s. Noise:" in text
    assert "- 10 ms:" not in text
    assert "- 100 ms: Contradicted" in text


def test_every_window_says_which_limit_it_kept() -> None:
    lines = printed(show_frontier, make_report(frontier=make_frontier())).splitlines()
    rows = [squeezed(line) for line in lines[lines.index("Rates that were tried") + 1 :]]
    assert rows[1].endswith("3.00 ms 5 ms, rig-bound")
    assert rows[3].endswith("4.50 ms again: 5 ms")
    assert rows[5].endswith("71.0 ms 100 ms")
    assert rows[6].endswith("FAIL only half were answered")


@pytest.mark.parametrize(("width", "longest"), [(60, 1), (70, 11), (80, 20), (120, 20)])
def test_bars_are_as_long_as_there_is_room(width: int, longest: int) -> None:
    report = make_report(frontier=make_frontier())
    assert f" {'#' * longest} " in printed(show_frontier, report, width=width)
    assert f"m{'━' * longest}\x1b" in printed(show_frontier, report, width=width, is_terminal=True)


def test_frontier_without_any_rate_is_shown() -> None:
    found = make_frontier(points=(make_point(1.0, None, confirmed=False, note="None."),), probes=())
    text = squeezed(printed(show_frontier, make_report(frontier=found)))
    assert "1 ms none - - not reached" in text
    assert "Rates that were tried" not in text


def test_run_without_a_frontier_shows_nothing() -> None:
    assert printed(show_frontier, make_report()) == ""
