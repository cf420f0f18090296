from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element

import msgspec
import pytest

from llm_proxy.benchmark import html_runs
from llm_proxy.benchmark import report as r
from tests.benchmark.charts import rows_in, text_in
from tests.benchmark.reports import (
    make_comparison,
    make_find_max,
    make_goodput,
    make_report,
    make_runs,
)


@pytest.mark.parametrize(
    "section",
    [html_runs.runs_section, html_runs.find_max_section, html_runs.comparison_section],
)
def test_single_run_has_no_section(section: Callable[[r.Report], Element | None]) -> None:
    assert section(make_report()) is None


def test_repeats_have_their_goodput() -> None:
    runs = tuple(msgspec.structs.replace(run, goodput_share=0.9996) for run in make_runs(2))
    rows = rows_in(html_runs.runs_section(make_report(runs=runs, goodput=make_goodput())))
    assert (rows[0][-1], rows[1][-1]) == ("goodput", "99.96 %")


def test_every_repeat_has_a_row() -> None:
    rows = rows_in(html_runs.runs_section(make_report(runs=make_runs(3))))
    assert [row[0] for row in rows] == ["run", "1", "2", "3"]
    assert rows[1][1] == "197/s"
    assert rows[1][-1] == "100 µs"
    assert rows[2][-2] == "1"


def test_repeats_without_a_baseline_have_no_added_column() -> None:
    runs = (r.Run(requests=1, errors=1, requests_per_second=0.0, latency_ms=None),)
    rows = rows_in(html_runs.runs_section(make_report(runs=runs)))
    assert rows == [
        ["run", "rate", "p50", "p99", "max", "errors"],
        ["1", "0/s", "-", "-", "-", "1"],
    ]


def test_every_probe_has_a_row_with_its_reason() -> None:
    element = html_runs.find_max_section(make_report(find_max=make_find_max()))
    rows = rows_in(element)
    assert len(rows) == 6
    assert rows[3][0] == "2,000/s"
    assert rows[3][-1] == "✗ failed p99 is 71 ms, over 50 ms"
    assert rows[5][0] == "1,500/s (confirming)"
    assert "did so again" in text_in(element)


def test_a_probe_that_the_rig_bound_says_so() -> None:
    probe = r.Probe(
        rate=10.0,
        requests_per_second=9.0,
        passed=False,
        reason="p99 is 71 ms, over 50 ms",
        latency_ms=None,
        rig_bound=True,
    )
    rows = rows_in(html_runs.find_max_section(make_report(find_max=make_find_max(probes=(probe,)))))
    assert rows[1][-1] == "✗ failed p99 is 71 ms, over 50 ms; rig-bound"


def test_a_change_says_whether_it_is_better() -> None:
    changes = (
        r.Change(metric="rps", old=210.0, new=199.8, change=-0.0486),
        r.Change(metric="p50", old=0.5, new=0.4, change=-0.2),
        r.Change(metric="errors", old=0.0, new=0.01, change=None),
        r.Change(metric="p99", old=1.0, new=1.0, change=0.0),
    )
    report = make_report(comparison=make_comparison(changes=changes))
    element = html_runs.comparison_section(report)
    assert rows_in(element)[1:] == [
        ["rps", "210 requests/s", "199.8 requests/s", "-4.86 % worse"],
        ["p50", "0.5 ms", "0.4 ms", "-20 % better"],
        ["errors", "0 %", "1 %", "from 0 worse"],
        ["p99", "1 ms", "1 ms", "none"],
    ]
    assert "⚠ The CPU was another one then" in text_in(element)
