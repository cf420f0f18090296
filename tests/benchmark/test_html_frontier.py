from __future__ import annotations

from llm_proxy.benchmark.html_frontier import frontier_section
from tests.benchmark.charts import find, rows_in
from tests.benchmark.reports import make_frontier, make_report


def test_limits_windows_and_chart_stand_in_the_section() -> None:
    section = frontier_section(make_report(frontier=make_frontier()))
    assert section is not None
    rows = rows_in(section)
    assert rows[1] == ["1 ms", "none", "-", "-", "-"]
    assert rows[2] == ["5 ms", "1,000/s", "1,000/s", "4.50 ms", "yes"]
    assert rows[4] == ["100 ms", "2,000/s", "2,000/s", "71.0 ms", "no"]
    assert rows[5][0] == "asked for"
    assert len(rows) == 12
    text = "".join(section.itertext())
    assert "Confirmed: the rates of 2 of 4 limits" in text
    assert "100 ms: Contradicted: 2,000/s." in text
    assert len(find(section, "charts")) == 1


def test_search_that_measured_nothing_has_no_chart() -> None:
    section = frontier_section(make_report(frontier=make_frontier(probes=())))
    assert section is not None
    assert find(section, "charts") == []


def test_run_without_a_frontier_has_no_section() -> None:
    assert frontier_section(make_report()) is None
