"""The tables of times, as printed."""

from __future__ import annotations

import pytest

from llm_proxy.benchmark.report import Histogram, ServerTiming, Spread
from llm_proxy.benchmark.terminal_figures import (
    show_histogram,
    show_latency,
    show_process,
    show_series,
    show_server_timing,
)
from tests.benchmark.printed import Show, printed, squeezed
from tests.benchmark.reports import (
    distribution,
    make_added,
    make_distribution,
    make_process,
    make_report,
    make_series,
)


def test_latency_has_a_row_for_each_way_to_look_at_it() -> None:
    lines = printed(show_latency, make_report()).splitlines()
    assert lines[2].split() == ["p50", "p75", "p90", "p95", "p99", "p99.9", "max"]
    assert [line[2:12].strip() for line in lines[3:8]] == [
        *("latency", "service", "first byte", "direct", "added")
    ]
    assert "520 µs" in lines[3] and "1.6 ms" in lines[3]
    assert "+110 µs" in lines[7]


def test_a_wide_terminal_shows_more_of_it() -> None:
    text = printed(show_latency, make_report(), is_wide=True)
    assert text.splitlines()[2].split()[:3] == ["min", "mean", "p50"]


def test_a_narrow_terminal_shows_less_of_it() -> None:
    lines = printed(show_latency, make_report(), width=60).splitlines()
    assert lines[2].split() == ["p50", "p90", "p99", "max"]


def test_what_was_not_measured_has_no_row() -> None:
    report = make_report(direct=None, added_latency_ms=None, first_byte_ms=None)
    text = printed(show_latency, report)
    assert "service" in text
    assert not any(word in text for word in ("direct", "added", "first byte"))


def test_no_more_digits_than_the_interval_of_what_is_added_supports() -> None:
    report = make_report(added_latency_ms=make_added(0.002, found=False))
    row = next(line for line in printed(show_latency, report).splitlines() if "added" in line)
    assert row.split()[1:3] == ["+2", "µs"]


def test_no_more_digits_than_the_spread_of_the_latency_supports() -> None:
    report = make_report(spread={"latency_ms.p50": Spread(low=0.30, high=0.70)})
    rows = [line.split() for line in printed(show_latency, report).splitlines()]
    assert [row[-14:-12] for row in rows[3:5]] == [["500", "µs"], ["500", "µs"]]


def test_a_percentile_is_never_surer_than_the_one_before() -> None:
    report = make_report(spread={"latency_ms.p90": Spread(low=0.40, high=1.1)})
    latency = printed(show_latency, report).splitlines()[3].split()
    assert latency[5:9] == ["800", "µs", "800", "µs"]


def test_few_requests_show_few_digits_in_every_row() -> None:
    few = distribution([1.234, 1.301, 1.877, 2.345, 3.456, 5.678])
    report = make_report(latency_ms=few, service_ms=few, direct=None, spread={})
    rows = printed(show_latency, report).splitlines()[3:5]
    assert [row.split()[1:3] for row in rows] == [["2", "ms"], ["2", "ms"]]


def test_times_from_microseconds_to_minutes_fit() -> None:
    wide = distribution([0.003 * 1.02**i for i in range(870)])
    report = make_report(latency_ms=wide, service_ms=wide, added_latency_ms=make_added(-123456.0))
    text = printed(show_latency, report)
    assert "µs" in text and " s" in text


def test_the_histogram_is_drawn_on_a_terminal_and_spelled_in_a_pipe() -> None:
    report = make_report()
    assert "▇" in printed(show_histogram, report, is_terminal=True)
    text = printed(show_histogram, report)
    assert "##" in text and "▇" not in text


def test_errors_that_never_end_are_not_listed() -> None:
    report = make_report(series=make_series(errors=7))
    assert "errors all the time" in printed(show_series, report)


def test_the_course_of_the_run_is_told_with_its_errors() -> None:
    text = squeezed(printed(show_series, make_report()))
    assert "requests/s 200 to 210" in text
    assert "p50 500 µs to 560 µs" in text
    assert "errors at 3 s (1), 7 s (1)" in text
    assert "▇" in printed(show_series, make_report(), is_terminal=True)


def test_many_moments_of_errors_are_cut_short() -> None:
    series = (*make_series(length=600, errors=5), *make_series(length=1, errors=0))
    text = squeezed(printed(show_series, make_report(series=series)))
    assert "0 s (5), 1 s (5)" in text
    assert "and 594 more" in text


def test_slices_without_an_answer_have_no_percentile() -> None:
    series = make_series(p50_ms=None, p99_ms=None, requests_per_second=0.0, errors=0)
    text = printed(show_series, make_report(series=series))
    assert "p50" not in text and "errors" not in text
    assert "requests/s" in text


def test_where_the_time_went_has_a_remainder() -> None:
    text = squeezed(printed(show_server_timing, make_report()))
    assert "proxy 104 µs" in text and "upstream 313 µs" in text and "unexplained 104 µs" in text
    assert "of 1,998 answers" in text
    assert "mean:" in text and "more time than was seen" not in text


def test_the_parts_of_the_time_are_added_up() -> None:
    timing = ServerTiming(
        answers=10,
        proxy_ms=make_distribution(0.1),
        upstream_ms=make_distribution(0.6),
        unexplained_ms=make_distribution(0.3),
        seen="first byte",
        seen_ms=make_distribution(1.0),
        excessive=2,
    )
    text = squeezed(printed(show_server_timing, make_report(server_timing=timing)))
    mean = "104 µs proxy + 626 µs upstream + 313 µs unexplained = 1.04 ms first byte"
    assert f"mean: {mean}; 2 answers told of more time than was seen" in text


def test_the_cost_of_the_target_is_told() -> None:
    text = squeezed(printed(show_process, make_report()))
    assert "CPU 210 µs a request, 420 ms in all" in text
    assert "62.1 MiB before, 71.5 at most, 70.2 after" in text
    assert "4711, 4712" in text
    assert "steady" not in text and "core hours" not in text


def test_a_long_run_shows_where_the_memory_goes() -> None:
    process = make_process(
        core_hours_per_million=0.05833,
        memory_steady_mib=70.5,
        memory_growth_mib_per_min=0.04,
        memory_recovered_mib=66.0,
    )
    text = squeezed(printed(show_process, make_report(process=process)))
    assert "420 ms in all; 0.058 core hours a million requests" in text
    assert "steady at 70.5 MiB, growth +0.04 MiB a minute, 66.0 after a rest" in text


def test_cpu_is_no_surer_than_its_clock() -> None:
    nothing = make_report(process=make_process(cpu_s=0.0, cpu_us_per_request=0.0))
    assert "CPU too little in so short a run to measure" in squeezed(printed(show_process, nothing))
    little = make_report(process=make_process(cpu_s=0.03, cpu_us_per_request=312.5))
    assert "CPU 300 µs a request, 30 ms in all" in squeezed(printed(show_process, little))


def test_of_many_processes_the_first_are_named() -> None:
    report = make_report(process=make_process(pids=tuple(range(1000, 1100))))
    assert "1005, …" in printed(show_process, report)


@pytest.mark.parametrize(
    ("show", "field"),
    [
        (show_latency, "latency_ms"),
        (show_histogram, "histogram"),
        (show_server_timing, "server_timing"),
        (show_process, "process"),
    ],
)
def test_a_section_that_was_not_measured_is_absent(show: Show, field: str) -> None:
    assert printed(show, make_report(**{field: None})) == ""


def test_too_little_for_a_course_or_a_histogram_is_absent_too() -> None:
    assert printed(show_series, make_report(series=make_series(length=2))) == ""
    assert printed(show_histogram, make_report(histogram=Histogram(edges_ms=(), counts=()))) == ""
