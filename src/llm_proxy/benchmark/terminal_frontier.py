"""The highest rate within each limit of p99, and every rate that was tried for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.text import Text

from llm_proxy.benchmark.frontier import keeps_p99, limit_text
from llm_proxy.benchmark.precision import format_ms, format_rate
from llm_proxy.benchmark.report import Frontier, FrontierPoint, Probe, Report
from llm_proxy.benchmark.terminal_page import Page
from llm_proxy.benchmark.text_table import Cell

_LONGEST_BAR: Final = 20
_BESIDE: Final = 57  # columns for the figures


def show_frontier(page: Page, report: Report) -> None:
    found = report.frontier
    if found is None:
        return
    page.heading("The highest rate within each limit of p99")
    top = max((point.rate or 0.0 for point in found.points), default=0.0)
    page.table(
        [_point_cells(page, point, top) for point in found.points],
        "rrrrll",
        head=("p99 within", "rate", "answered", "p99", "", ""),
    )
    page.blank()
    page.line(found.note)
    for point in found.points:
        if not point.confirmed or point.is_noisy:
            page.line(f"- {limit_text(point.p99_limit_ms)}: {point.note}", hanging=2)
    _show_probes(page, found)


def _point_cells(page: Page, point: FrontierPoint, top: float) -> list[Cell]:
    p99 = None if point.latency_ms is None else point.latency_ms.p99
    limit = limit_text(point.p99_limit_ms)
    if point.rate is None:
        return [limit, Text("none", style="bold magenta"), "-", "-", "", "not reached"]
    style = "bold green" if point.confirmed else "bold magenta"
    bar = _bar(page, point.rate / top)
    return [
        limit,
        Text(f"{format_rate(point.rate)}/s", style=style),
        f"{format_rate(point.requests_per_second)}/s",
        format_ms(p99),
        Text(bar, style="cyan"),
        "confirmed" if point.confirmed else Text("not confirmed", style="magenta"),
    ]


def _bar(page: Page, share: float) -> str:
    """What isn't nothing shows."""
    room = min(page.width - _BESIDE, _LONGEST_BAR)
    return ("━" if page.has_blocks else "#") * max(round(share * room), 1)


def _show_probes(page: Page, found: Frontier) -> None:
    if found.probes:
        page.heading("Rates that were tried")
    limits_ms = [point.p99_limit_ms for point in found.points]
    page.table(
        [_probe_cells(page, probe, limits_ms) for probe in found.probes],
        "rrrrw",
        head=("asked for", "answered", "p50", "p99", "p99 within"),
    )


def _probe_cells(page: Page, probe: Probe, limits_ms: Iterable[float]) -> list[Cell]:
    verdict = Text("again: " if probe.is_confirmation else "")
    kept = min((ms for ms in limits_ms if keeps_p99(ms)(probe)), default=None)
    if kept is not None:
        verdict.append(limit_text(kept), style="green")
    else:
        reason = probe.reason.partition(":")[0] or "none of them"  # without advice
        verdict.append(f"{page.mark(False)} {reason}", style="red")
    if probe.rig_bound:
        verdict.append(", rig-bound", style="bold magenta")
    latency = probe.latency_ms
    times = ["-", "-"] if latency is None else [format_ms(latency.p50), format_ms(latency.p99)]
    rates = [f"{format_rate(rate)}/s" for rate in (probe.rate, probe.requests_per_second)]
    return [*rates, *times, verdict]
