"""Several runs side by side in the HTML report: repeats, rates tried, an earlier report."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from llm_proxy.benchmark.html_tables import mark, section, table
from llm_proxy.benchmark.markup import Child, node
from llm_proxy.benchmark.metric import Metric, parse_metric
from llm_proxy.benchmark.precision import format_change, format_met, format_ms, format_rate
from llm_proxy.benchmark.report import Change, Distribution, Probe, Report


def runs_section(report: Report) -> Element | None:
    if not report.runs:
        return None
    has_added = any(run.added_typical_ms is not None for run in report.runs)
    rows: list[list[Child]] = [
        [
            str(i),
            f"{format_rate(run.requests_per_second)}/s",
            *(_ms(run.latency_ms, name) for name in ("p50", "p99", "max")),
            f"{run.errors:,}",
            *([format_ms(run.added_typical_ms)] if has_added else []),
            *([] if run.goodput_share is None else [format_met(run.goodput_share)]),
        ]
        for i, run in enumerate(report.runs, 1)
    ]
    head = ["run", "rate", "p50", "p99", "max", "errors", *(["added"] if has_added else [])]
    if report.goodput is not None:
        head.append("goodput")
    note = "The figures of this page are those of the median run."
    return section("Repeats", node("p", note, class_="note"), table(head, rows))


def find_max_section(report: Report) -> Element | None:
    found = report.find_max
    if found is None:
        return None
    return section(
        "The highest rate",
        node("p", found.note),
        node("p", "Limits: " + ", ".join(found.slo), class_="note"),
        probes_table(found.probes),
    )


def probes_table(probes: Sequence[Probe]) -> Element:
    rows: list[list[Child]] = [
        [
            f"{format_rate(probe.rate)}/s" + (" (confirming)" if probe.is_confirmation else ""),
            f"{format_rate(probe.requests_per_second)}/s",
            _ms(probe.latency_ms, "p50"),
            _ms(probe.latency_ms, "p99"),
            node("span", mark(probe.passed), " ", _reason(probe)),
        ]
        for probe in probes
    ]
    return table(["asked for", "answered", "p50", "p99", "limits"], rows)


def comparison_section(report: Report) -> Element | None:
    comparison = report.comparison
    if comparison is None:
        return None
    rows: list[list[Child]] = []
    for change in comparison.changes:
        metric = parse_metric(change.metric)
        rows.append(
            [
                change.metric,
                metric.show(change.old),
                metric.show(change.new),
                _change(metric, change),
            ]
        )
    return section(
        "Compared with an earlier report",
        node("p", f"{comparison.file}, of {comparison.started_at}", class_="note"),
        *(node("p", "⚠ ", warning, class_="warning") for warning in comparison.warnings),
        table(["", "then", "now", "change"], rows),
    )


def _reason(probe: Probe) -> str:
    return "; ".join(filter(None, (probe.reason, "rig-bound" if probe.rig_bound else "")))


def _change(metric: Metric, change: Change) -> Element:
    """Better or worse in words too; a change of nothing is neither."""
    text = "from 0" if change.change is None else format_change(change.change)
    if change.new == change.old:
        return node("span", "none")
    is_better = (change.new > change.old) == metric.more_is_better
    word, class_ = ("better", "pass") if is_better else ("worse", "fail")
    return node("span", f"{text} ", node("span", word, class_=class_))


def _ms(distribution: Distribution | None, name: str) -> str:
    return format_ms(None if distribution is None else getattr(distribution, name))
