"""Several runs side by side: repeats, the search for the highest rate, and an earlier report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.text import Text

from llm_proxy.benchmark.metric import Metric, parse_metric
from llm_proxy.benchmark.precision import format_ms, format_number, format_rate, format_share
from llm_proxy.benchmark.report import Change, Distribution, Probe, Report, Run
from llm_proxy.benchmark.terminal_page import Page
from llm_proxy.benchmark.text_table import Cell


def show_runs(page: Page, report: Report) -> None:
    runs = report.runs
    if not runs:
        return
    page.heading("Repeats")
    has_added = any(run.added_typical_ms is not None for run in runs)
    head = ["run", "requests/s", "p50", "p99", "max", "failed", *(["added"] if has_added else [])]
    rows: list[Sequence[Cell]] = [_dim(head)]
    for i, run in enumerate(runs, 1):
        is_shown = run.latency_ms == report.latency_ms and (
            run.requests_per_second == report.requests_per_second
        )
        rows.append([str(i), *_run_cells(run, has_added=has_added), "shown above" * is_shown])
    page.table([[*row, ""][: len(head) + 1] for row in rows], "r" * len(head) + "w")
    page.line(_run_spread(runs), hanging=2)


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
    rows: list[Sequence[Cell]] = [_dim(["asked for", "answered", "p50", "p99", ""])]
    rows += [_probe_cells(page, probe) for probe in found.probes]
    page.table(rows, "rrrrw")


def show_comparison(page: Page, report: Report) -> None:
    comparison = report.comparison
    if comparison is None:
        return
    page.heading(f"Compared with {comparison.file}, of {comparison.started_at}")
    for warning in comparison.warnings:
        page.line(Text(f"- {warning}", style="magenta"), hanging=2)
    rows: list[Sequence[Cell]] = [_dim(["", "then", "now", "change", ""])]
    rows += [_change_cells(change) for change in comparison.changes]
    page.table(rows, "lrrrl")


def _run_cells(run: Run, *, has_added: bool) -> list[Cell]:
    added = [format_ms(run.added_typical_ms, signed=True)] if has_added else []
    times = [_time(run.latency_ms, name) for name in ("p50", "p99", "max")]
    return [format_rate(run.requests_per_second), *times, f"{run.errors:,}", *added]


def _run_spread(runs: Sequence[Run]) -> Text:
    """Of the rate and the median latency."""
    rates = [run.requests_per_second for run in runs]
    text = Text(f"median {format_rate(median(rates))} requests/s, {_reach(rates, format_rate)}")
    times = [run.latency_ms.p50 for run in runs if run.latency_ms is not None]
    if times:
        text.append(f"; p50 {format_ms(median(times))}, {_reach(times, format_ms)}")
    return text
