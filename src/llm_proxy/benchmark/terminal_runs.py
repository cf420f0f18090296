"""Several runs side by side: repeats, the search for the highest rate, and an earlier report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from rich.text import Text

from llm_proxy.benchmark.metric import Metric, parse_metric
from llm_proxy.benchmark.precision import (
    format_change,
    format_met,
    format_ms,
    format_rate,
    format_share,
)
from llm_proxy.benchmark.report import Change, Distribution, Probe, Report, Run
from llm_proxy.benchmark.terminal_page import Page
from llm_proxy.benchmark.text_table import Cell

_Show = Callable[[float | None], str]


def show_runs(page: Page, report: Report) -> None:
    """The runs in rows, and under them each figure's median and reach."""
    if not report.runs:
        return
    page.heading("Repeats")
    columns = [it for it in _columns(report.runs) if _is_shown(it[0][0], it[1])]
    shown = [[show(value) for value in values] for (_, show), values in columns]
    rows: list[list[Cell]] = []
    for i, run in enumerate(report.runs):
        rows.append([str(i + 1), *(column[i] for column in shown), "above" * _is_of(run, report)])
    for name, pick in (("median", median), ("least", min), ("most", max)):
        summary = [show(pick(_known(values))) for (_, show), values in columns]
        rows.append([Text(cell, style="bold" * (pick is median)) for cell in (name, *summary, "")])
    head = ("run", *(name for (name, _), _ in columns), "")
    page.table(rows, "r" * (len(columns) + 1) + "l", head=head)


def show_find_max(page: Page, report: Report) -> None:
    found = report.find_max
    if found is None:
        return
    page.heading("The highest rate that met " + ", ".join(found.slo))
    if found.rate is not None:
        style = "bold green" if found.confirmed else "bold magenta"
        page.line(Text.assemble((f"{format_rate(found.rate)} requests/s", style)))
    page.line(found.note)
    page.blank()
    rows = [_probe_cells(page, probe) for probe in found.probes]
    page.table(rows, "rrrrw", head=("asked for", "answered", "p50", "p99", ""))


def show_comparison(page: Page, report: Report) -> None:
    comparison = report.comparison
    if comparison is None:
        return
    page.heading(f"Compared with {comparison.file}, of {comparison.started_at}")
    for warning in comparison.warnings:
        page.line(Text(f"- {warning}", style="magenta"), hanging=2)
    rows = [_change_cells(change) for change in comparison.changes]
    page.table(rows, "lrrrl", head=("", "then", "now", "change", ""))


def _columns(runs: Sequence[Run]) -> list[tuple[tuple[str, _Show], list[float | None]]]:
    times = [
        ((name, format_ms), [_time(run.latency_ms, name) for run in runs])
        for name in ("p50", "p99", "max")
    ]
    return [
        (("requests/s", format_rate), [run.requests_per_second for run in runs]),
        *times,
        (("failed", _count), [run.errors for run in runs]),
        (("added", _signed_ms), [run.added_typical_ms for run in runs]),
        (("goodput", _met), [run.goodput_share for run in runs]),
    ]


def _is_shown(name: str, values: Sequence[float | None]) -> bool:
    """What was measured; failures only where there were some."""
    return any(values) if name == "failed" else bool(_known(values))


def _is_of(run: Run, report: Report) -> bool:
    """Whether the report's own figures are those of this run."""
    same_rate = run.requests_per_second == report.requests_per_second
    return same_rate and run.latency_ms == report.latency_ms


def _probe_cells(page: Page, probe: Probe) -> list[Cell]:
    confirming = "again: " if probe.is_confirmation else ""
    if probe.rig_bound:
        verdict = Text("rig-bound", style="bold magenta")
    elif probe.passed:
        verdict = Text(page.mark(True), style="green")
    else:
        verdict = Text(f"{page.mark(False)} {probe.reason}", style="red")
    times = [format_ms(_time(probe.latency_ms, name)) for name in ("p50", "p99")]
    rates = [f"{format_rate(rate)}/s" for rate in (probe.rate, probe.requests_per_second)]
    return [*rates, *times, Text(confirming).append_text(verdict)]


def _change_cells(change: Change) -> list[Cell]:
    metric = parse_metric(change.metric)
    old, new = _metric_text(metric, change.old), _metric_text(metric, change.new)
    share = "from 0" if change.change is None else format_change(change.change)
    if change.old == change.new:
        return [change.metric, old, new, "same", ""]
    is_better = (change.new > change.old) == metric.more_is_better
    style, word = ("green", "better") if is_better else ("red", "worse")
    return [change.metric, old, new, Text(share, style=style), Text(word, style=style)]


def _metric_text(metric: Metric, value: float) -> str:
    if metric.family == "goodput":
        return _met(value)
    if metric.unit == "share":
        return format_share(value)
    return format_ms(value) if metric.unit == "ms" else f"{format_rate(value)}/s"


def _time(times: Distribution | None, name: str) -> float | None:
    found: float | None = getattr(times, name, None)
    return found


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _met(value: float | None) -> str:
    return "-" if value is None else format_met(value)


def _signed_ms(value: float | None) -> str:
    return format_ms(value, signed=True)
