"""The section of --frontier in the HTML report."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from llm_proxy.benchmark.frontier import limit_text
from llm_proxy.benchmark.frontier_chart import frontier_chart
from llm_proxy.benchmark.html_runs import probes_table
from llm_proxy.benchmark.html_tables import section, table
from llm_proxy.benchmark.markup import Child, node
from llm_proxy.benchmark.precision import format_ms, format_rate
from llm_proxy.benchmark.report import FrontierPoint, Report


def frontier_section(report: Report) -> Element | None:
    found = report.frontier
    if found is None:
        return None
    head = ["p99 within", "rate", "answered", "p99", "confirmed"]
    chart = frontier_chart(found)
    return section(
        "The highest rate within each limit of p99",
        table(head, map(_row, found.points)),
        node("p", found.note),
        node("ul", *map(_note, found.points), class_="checks note"),
        None if chart is None else node("div", chart, class_="charts"),
        node("h3", "Rates that were tried"),
        probes_table(found.probes),
    )


def _row(point: FrontierPoint) -> list[Child]:
    limit = limit_text(point.p99_limit_ms)
    if point.rate is None or point.latency_ms is None:
        return [limit, "none", "-", "-", "-"]
    return [
        limit,
        node("strong", f"{format_rate(point.rate)}/s"),
        f"{format_rate(point.requests_per_second)}/s",
        format_ms(point.latency_ms.p99),
        "yes" if point.confirmed else "no",
    ]


def _note(point: FrontierPoint) -> Element:
    return node("li", f"{limit_text(point.p99_limit_ms)}: {point.note}")
