"""Repeats, searches and comparisons, as printed."""

from __future__ import annotations

import msgspec

from llm_proxy.benchmark.report import Change, Probe
from llm_proxy.benchmark.terminal_runs import show_comparison, show_find_max, show_runs
from tests.benchmark.printed import printed, squeezed
from tests.benchmark.reports import make_comparison, make_find_max, make_report, make_runs


def _rows(text: str) -> dict[str, str]:
    """By their first word."""
    return {line.split()[0]: squeezed(line) for line in text.splitlines() if line.split()}


def test_repeats_are_listed_with_their_median_and_reach() -> None:
    rows = _rows(printed(show_runs, make_report(runs=make_runs())))
    assert rows["2"] == "2 198 512 µs 1.05 ms 1.28 ms 1 +105 µs"
    assert rows["median"].startswith("median 199 522 µs")
    assert rows["least"].startswith("least 197 502 µs")
    assert rows["most"].startswith("most 201 542 µs")


def test_the_run_that_the_report_is_of_is_marked() -> None:
    runs = make_runs()
    report = make_report(
        runs=runs, latency_ms=runs[3].latency_ms, requests_per_second=runs[3].requests_per_second
    )
    marked = [line for line in printed(show_runs, report).splitlines() if "above" in line]
    assert [line.split()[0] for line in marked] == ["4"]


def test_goodput_stands_in_repeats_and_comparisons() -> None:
    runs = tuple(msgspec.structs.replace(run, goodput_share=0.973) for run in make_runs(3))
    lines = printed(show_runs, make_report(runs=runs)).splitlines()
    assert lines[2].split()[-1] == "goodput"
    assert "97.3 %" in lines[3]
    none_good = tuple(msgspec.structs.replace(run, goodput_share=0.0) for run in make_runs(3))
    assert "goodput" in printed(show_runs, make_report(runs=none_good))
    change = Change(metric="goodput", old=0.9996, new=0.9, change=-0.0996)
    report = make_report(comparison=make_comparison(changes=(change,)))
    assert "goodput 99.96 % 90 % -9.96 % worse" in squeezed(printed(show_comparison, report))


def test_repeats_without_a_direct_side_or_answers_have_fewer_columns() -> None:
    runs = [
        msgspec.structs.replace(run, added_typical_ms=None, latency_ms=None) for run in make_runs()
    ]
    text = printed(show_runs, make_report(runs=tuple(runs)))
    assert "added" not in text and "p50" not in text
    assert _rows(text)["1"] == "1 197 0"


def test_a_run_that_lacks_a_figure_does_not_spoil_the_others() -> None:
    first, *others = make_runs(3)
    runs = (msgspec.structs.replace(first, latency_ms=None), *others)
    rows = _rows(printed(show_runs, make_report(runs=runs)))
    assert rows["1"].startswith("1 197 - - -")
    assert rows["least"].startswith("least 197 512 µs")


def test_a_search_lists_its_probes_with_the_limit_that_was_missed() -> None:
    text = squeezed(printed(show_find_max, make_report(find_max=make_find_max())))
    assert "The highest rate that met p99<=50ms 1,500 requests/s" in text
    assert "and did so again" in text
    assert "2,000/s 2,000/s 10.0 ms 20.6 ms FAIL p99 is 71 ms, over 50 ms" in text
    assert "again: ok" in text


def test_a_search_without_a_result_claims_none() -> None:
    probe = Probe(
        rate=10.0,
        requests_per_second=0.0,
        passed=False,
        reason="p99 wasn't measured",
        latency_ms=None,
        rig_bound=False,
    )
    found = make_find_max(rate=None, confirmed=False, probes=(probe,), note="None met them.")
    text = squeezed(printed(show_find_max, make_report(find_max=found)))
    assert "None met them. asked for" in text
    assert "10.0/s 0/s - - FAIL p99 wasn't measured" in text


def test_a_probe_that_the_rig_bound_is_called_so() -> None:
    bound = msgspec.structs.replace(make_find_max().probes[0], rig_bound=True)
    text = printed(show_find_max, make_report(find_max=make_find_max(probes=(bound,))))
    assert "rig-bound" in text


def test_a_long_reason_is_wrapped_beside_its_rate() -> None:
    probe = msgspec.structs.replace(make_find_max().probes[2], reason="p99 is far too long; " * 9)
    text = printed(show_find_max, make_report(find_max=make_find_max(probes=(probe,))))
    assert squeezed(text).count("p99 is far too long;") == 9


def test_a_comparison_says_in_words_what_got_worse() -> None:
    changes = (
        Change(metric="rps", old=210.0, new=199.8, change=-0.0486),
        Change(metric="p99", old=0.9, new=0.8, change=-0.1111),
        Change(metric="p50", old=0.5, new=0.5, change=0.0),
        Change(metric="errors", old=0.0, new=0.01, change=None),
    )
    text = printed(show_comparison, make_report(comparison=make_comparison(changes=changes)))
    rows = _rows(text)
    assert rows["rps"] == "rps 210/s 200/s -4.86 % worse"
    assert rows["p99"] == "p99 900 µs 800 µs -11.1 % better"
    assert rows["p50"] == "p50 500 µs 500 µs same"
    assert rows["errors"].endswith("from 0 worse")
    assert "Compared with old.json, of 2026-02-01" in text
    assert "Old CPU" in text


def test_what_got_worse_is_red_on_a_terminal() -> None:
    text = printed(show_comparison, make_report(comparison=make_comparison()), is_terminal=True)
    assert "\x1b[31mworse" in text


def test_single_runs_have_none_of_these_sections() -> None:
    report = make_report()
    for show in (show_runs, show_find_max, show_comparison):
        assert printed(show, report) == ""
