"""How the requests ended, as printed."""

from __future__ import annotations

import pytest

from llm_proxy.benchmark.report import Fidelity
from llm_proxy.benchmark.terminal_answers import format_size, show_answers
from tests.benchmark.printed import printed, squeezed
from tests.benchmark.reports import make_report


def test_both_sides_stand_beside_each_other_with_a_hint_to_errors() -> None:
    text = squeezed(printed(show_answers, make_report()))
    assert "proxied direct 200 1,998 1,998 502 2 2 the target couldn't reach" in text
    assert "sent 824 kB 824 kB" in text


def test_one_side_alone_has_one_column() -> None:
    text = squeezed(printed(show_answers, make_report(direct=None)))
    assert "direct" not in text.partition("fidelity")[0]
    assert "200 1,998 502 2 the target" in text


def test_kinds_of_errors_without_a_status_are_listed() -> None:
    report = make_report(error_kinds={"5xx": 2, "connect": 7, "timeout": 3}, direct=None)
    text = squeezed(printed(show_answers, report))
    assert "connect 7 no connection" in text
    assert "timeout 3 no byte within" in text
    assert "5xx" not in text  # the codes tell more


def test_cancelled_ones_are_no_errors() -> None:
    text = printed(show_answers, make_report(cancelled=200), is_terminal=True)
    line = next(line for line in text.splitlines() if "cancelled" in line)
    assert "200" in line and "\x1b[31m" not in line


def test_the_most_frequent_codes_are_shown_in_order() -> None:
    codes = {str(400 + i): i for i in range(1, 21)}
    text = printed(show_answers, make_report(status_codes=codes, direct=None))
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("  4")]
    assert shown == [str(code) for code in range(413, 421)]


def test_nothing_sent_is_no_section() -> None:
    assert printed(show_answers, make_report(requests=0)) == ""


@pytest.mark.parametrize(
    ("fidelity", "expected"),
    [
        (Fidelity(verdict="equal", compared=2000), "2,000 answers compared"),
        (Fidelity(verdict="not comparable", reason="it never repeats"), "not comparable: it never"),
        (
            Fidelity(verdict="different", compared=2000, different=13, bodies=(0, 7)),
            "13 of 2,000 answers DIFFER from the direct ones (request bodies, counted from 0: 0, 7",
        ),
    ],
)
def test_fidelity_is_told(fidelity: Fidelity, expected: str) -> None:
    assert expected in squeezed(printed(show_answers, make_report(fidelity=fidelity)))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_999, "1 MB"), (1_784_000, "1.78 MB")],
)
def test_sizes_are_short(count: int, expected: str) -> None:
    assert format_size(count) == expected


def test_sizes_beyond_the_last_unit_keep_it() -> None:
    assert format_size(5 * 10**15).endswith(" TB")
