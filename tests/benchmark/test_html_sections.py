from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element

import pytest

from llm_proxy.benchmark import html_sections as sections
from llm_proxy.benchmark import report as r
from tests.benchmark.charts import find, rows_in, text_in
from tests.benchmark.reports import (
    make_added,
    make_process,
    make_report,
    make_stream_report,
    make_streams,
)


@pytest.mark.parametrize(
    "section",
    [
        sections.added_section,
        sections.streams_section,
        sections.fidelity_section,
        sections.server_timing_section,
        sections.process_section,
    ],
)
def test_what_was_not_measured_has_no_section(
    section: Callable[[r.Report], Element | None],
) -> None:
    bare = make_report(added_latency_ms=None, fidelity=None, server_timing=None, process=None)
    assert section(bare) is None


def test_each_added_figure_has_its_sentence_and_interval() -> None:
    element = sections.added_section(make_stream_report())
    assert element is not None
    assert [it.text for it in element.iter("h3")] == [
        *("Latency", "Time to the first token", "Between tokens")
    ]
    assert len(find(element, "interval")) == 3
    text = text_in(element)
    assert "The proxy adds 9.8 ms to the latency" in text
    assert "No difference was found between two tokens" in text


def test_one_added_figure_stands_alone() -> None:
    element = sections.added_section(make_report(added_latency_ms=make_added(0.2)))
    assert [row[0] for row in rows_in(element)] == ["", "Latency"]


def test_streams_have_both_sides_and_their_losses() -> None:
    element = sections.streams_section(
        make_stream_report(streams=make_streams(cancelled=7, tokens_per_second_per_stream=None))
    )
    assert [row[0] for row in rows_in(element)][1:] == [
        *("first token", "second token", "between tokens"),
        *("direct: first token", "direct: second token", "direct: between tokens"),
    ]
    text = text_in(element)
    assert "stalls3 in 2 streams" in text
    assert "cancelled7" in text
    assert "of one stream" not in text


@pytest.mark.parametrize(
    ("fidelity", "words"),
    [
        (r.Fidelity(verdict="equal", compared=5), "✓ ok 5 answers through the proxy were the same"),
        (
            r.Fidelity(verdict="different", compared=5, different=2, bodies=(0, 3)),
            "✗ failed 2 of 5 answers through the proxy weren't the bytes that came directly; "
            "request bodies (from 0): 0, 3.",
        ),
        (
            r.Fidelity(verdict="not comparable", reason="the upstream never repeats itself"),
            "Fidelity Not comparable: the upstream never repeats itself.",
        ),
    ],
)
def test_fidelity_is_a_verdict_with_its_reason(fidelity: r.Fidelity, words: str) -> None:
    text = text_in(sections.fidelity_section(make_report(fidelity=fidelity)))
    assert words in text.replace("Fidelity", "Fidelity ").replace("  ", " ")


def test_the_shares_of_the_time_fill_their_bar() -> None:
    element = sections.server_timing_section(make_report())
    assert element is not None
    widths = [float(it.get("width", "")) for it in find(element, "share")]
    assert [width / sum(widths) for width in widths] == pytest.approx([0.2, 0.6, 0.2], abs=0.01)
    (bar,) = find(element, "shares")
    assert bar.get("aria-label") == "proxy 20%, upstream 60%, unexplained 20%"


def test_answers_are_counted_by_status_and_kind() -> None:
    report = make_report(error_kinds={"5xx": 2, "timeout": 3}, cancelled=4)
    assert rows_in(sections.answers_section(report)) == [
        ["", "proxied", "direct"],
        ["200", "1,998", "1,998"],
        ["502", "2", "2"],
        ["error: 5xx", "2", "2"],
        ["error: timeout", "3", "0"],
    ]
    assert "cancelled4" in text_in(sections.answers_section(report))
    assert rows_in(sections.answers_section(make_report(direct=None)))[0] == ["", "requests"]


def test_processes_have_their_costs() -> None:
    text = text_in(sections.process_section(make_report()))
    assert "CPU per request210 µs" in text
    assert "62.1 · 71.5 · 70.2 MiB" in text
    assert "growth" not in text and "core hours" not in text


def test_processes_of_a_long_run_have_a_trend() -> None:
    process = make_process(
        core_hours_per_million=0.05833,
        memory_steady_mib=70.5,
        memory_growth_mib_per_min=-0.04,
        memory_recovered_mib=66.0,
    )
    text = text_in(sections.process_section(make_report(process=process)))
    assert "0.058 core hours" in text
    assert "memory in the second half70.5 MiB" in text
    assert "memory growth-0.04 MiB a minute" in text
    assert "memory after a rest66.0 MiB" in text
