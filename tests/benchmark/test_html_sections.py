from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element

import msgspec
import pytest

from llm_proxy.benchmark import html_sections as sections
from llm_proxy.benchmark import report as r
from tests.benchmark.charts import find
from tests.benchmark.reports import (
    make_added,
    make_comparison,
    make_find_max,
    make_goodput,
    make_process,
    make_report,
    make_runs,
    make_stream_report,
    make_streams,
)


def _text(element: Element | None) -> str:
    assert element is not None
    return " ".join("".join(element.itertext()).split())


def _rows(element: Element | None) -> list[list[str]]:
    assert element is not None
    return [["".join(cell.itertext()) for cell in row] for row in element.iter("tr")]


@pytest.mark.parametrize(
    "section",
    [
        sections.added_section,
        sections.streams_section,
        sections.fidelity_section,
        sections.server_timing_section,
        sections.process_section,
        sections.runs_section,
        sections.find_max_section,
        sections.comparison_section,
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
    text = _text(element)
    assert "The proxy adds 9.8 ms to the latency" in text
    assert "No difference was found between two tokens" in text


def test_one_added_figure_stands_alone() -> None:
    element = sections.added_section(make_report(added_latency_ms=make_added(0.2)))
    assert [row[0] for row in _rows(element)] == ["", "Latency"]


def test_streams_have_both_sides_and_their_losses() -> None:
    element = sections.streams_section(
        make_stream_report(streams=make_streams(cancelled=7, tokens_per_second_per_stream=None))
    )
    assert [row[0] for row in _rows(element)][1:] == [
        *("first token", "second token", "between tokens"),
        *("direct: first token", "direct: second token", "direct: between tokens"),
    ]
    text = _text(element)
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
    text = _text(sections.fidelity_section(make_report(fidelity=fidelity)))
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
    assert _rows(sections.answers_section(report)) == [
        ["", "proxied", "direct"],
        ["200", "1,998", "1,998"],
        ["502", "2", "2"],
        ["error: 5xx", "2", "2"],
        ["error: timeout", "3", "0"],
    ]
    assert "cancelled4" in _text(sections.answers_section(report))
    assert _rows(sections.answers_section(make_report(direct=None)))[0] == ["", "requests"]


def test_processes_have_their_costs() -> None:
    text = _text(sections.process_section(make_report()))
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
    text = _text(sections.process_section(make_report(process=process)))
    assert "0.058 core hours" in text
    assert "memory in the second half70.5 MiB" in text
    assert "memory growth-0.04 MiB a minute" in text
    assert "memory after a rest66.0 MiB" in text


def test_repeats_have_their_goodput() -> None:
    runs = tuple(msgspec.structs.replace(run, goodput_share=0.9996) for run in make_runs(2))
    rows = _rows(sections.runs_section(make_report(runs=runs, goodput=make_goodput())))
    assert (rows[0][-1], rows[1][-1]) == ("goodput", "99.96 %")


def test_every_repeat_has_a_row() -> None:
    rows = _rows(sections.runs_section(make_report(runs=make_runs(3))))
    assert [row[0] for row in rows] == ["run", "1", "2", "3"]
    assert rows[1][1] == "197/s"
    assert rows[1][-1] == "100 µs"
    assert rows[2][-2] == "1"


def test_repeats_without_a_baseline_have_no_added_column() -> None:
    runs = (r.Run(requests=1, errors=1, requests_per_second=0.0, latency_ms=None),)
    rows = _rows(sections.runs_section(make_report(runs=runs)))
    assert rows == [
        ["run", "rate", "p50", "p99", "max", "errors"],
        ["1", "0/s", "-", "-", "-", "1"],
    ]


def test_every_probe_has_a_row_with_its_reason() -> None:
    element = sections.find_max_section(make_report(find_max=make_find_max()))
    rows = _rows(element)
    assert len(rows) == 6
    assert rows[3][0] == "2,000/s"
    assert rows[3][-1] == "✗ failed p99 is 71 ms, over 50 ms"
    assert rows[5][0] == "1,500/s (confirming)"
    assert "did so again" in _text(element)


def test_a_probe_that_the_rig_bound_says_so() -> None:
    probe = r.Probe(
        rate=10.0,
        requests_per_second=9.0,
        passed=False,
        reason="p99 is 71 ms, over 50 ms",
        latency_ms=None,
        rig_bound=True,
    )
    rows = _rows(sections.find_max_section(make_report(find_max=make_find_max(probes=(probe,)))))
    assert rows[1][-1] == "✗ failed p99 is 71 ms, over 50 ms; rig-bound"


def test_a_change_says_whether_it_is_better() -> None:
    changes = (
        r.Change(metric="rps", old=210.0, new=199.8, change=-0.0486),
        r.Change(metric="p50", old=0.5, new=0.4, change=-0.2),
        r.Change(metric="errors", old=0.0, new=0.01, change=None),
        r.Change(metric="p99", old=1.0, new=1.0, change=0.0),
    )
    report = make_report(comparison=make_comparison(changes=changes))
    element = sections.comparison_section(report)
    assert _rows(element)[1:] == [
        ["rps", "210 requests/s", "199.8 requests/s", "-4.86 % worse"],
        ["p50", "0.5 ms", "0.4 ms", "-20 % better"],
        ["errors", "0 %", "1 %", "from 0 worse"],
        ["p99", "1 ms", "1 ms", "none"],
    ]
    assert "⚠ The CPU was another one then" in _text(element)
