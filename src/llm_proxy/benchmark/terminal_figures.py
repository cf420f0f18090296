"""The tables of times: latency, where it went, how it spread, and what it cost the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from rich.text import Text

from llm_proxy.benchmark.ascii_histogram import histogram_lines
from llm_proxy.benchmark.certainty import around, column, cpu_share, shares_of, spreads
from llm_proxy.benchmark.precision import format_ms, format_number, format_rate
from llm_proxy.benchmark.report import (
    PERCENTILES,
    Added,
    Distribution,
    ProcessUsage,
    Report,
    ServerTiming,
    Spread,
)
from llm_proxy.benchmark.sparkline import sparkline
from llm_proxy.benchmark.terminal_page import Page
from llm_proxy.benchmark.text_table import Cell

_NARROW_COLUMNS: Final = (*PERCENTILES, "max")
_WIDE_COLUMNS: Final = ("min", "mean", *_NARROW_COLUMNS)
_FEWEST_COLUMNS: Final = ("p50", "p90", "p99", "max")
_LEAST_FOR_ALL: Final = 78  # columns
_OF_SAME_REQUESTS: Final = ("latency", "service", "first byte")  # they vary together
_MOST_NAMED: Final = 6

NamedDistribution = tuple[str, Distribution | None]


def show_latency(page: Page, report: Report) -> None:
    if report.latency_ms is None:
        return
    direct, added = report.direct, report.added_latency_ms
    known = shares_of(report.latency_ms, report.spread)
    page.heading("Latency")
    show_times(
        page,
        [
            ("latency", report.latency_ms),
            ("service", report.service_ms),
            ("first byte", report.first_byte_ms),
            ("direct", None if direct is None else direct.latency_ms),
            ("added", added),
        ],
        known=dict.fromkeys(_OF_SAME_REQUESTS, known),
    )
    note = "latency counts from when a request was due, service from when it was sent"
    page.line(note + ("; added is of pairs" if added else ""), style="dim")


def show_times(
    page: Page,
    rows: Sequence[NamedDistribution],
    *,
    known: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> None:
    """A row each of those that were measured; `known` by row, as `spreads` takes it."""
    columns = _columns(page)
    lines = [
        [name, *_cells(times, columns, spreads(times, known.get(name)))]
        for name, times in rows
        if times is not None
    ]
    page.table(lines, "l" + "r" * len(columns), head=("", *columns))


def _columns(page: Page) -> tuple[str, ...]:
    if page.is_wide:
        return _WIDE_COLUMNS
    return _NARROW_COLUMNS if page.width >= _LEAST_FOR_ALL else _FEWEST_COLUMNS


def show_histogram(page: Page, report: Report) -> None:
    if report.histogram is None:
        return
    lines = histogram_lines(report.histogram, page.width, has_blocks=page.has_blocks)
    if lines:
        page.heading("Distribution of the latency")
    for text, bar in lines:
        page.line(Text.assemble(text, (bar, "cyan")))


def show_series(page: Page, report: Report) -> None:
    """How steady it was; a run of two slices has no course."""
    if len(report.series) < 3:
        return
    page.heading("Over time")
    rows = [
        _course(
            page, "requests/s", [one.requests_per_second for one in report.series], format_rate
        ),
        _course(page, "p50", [one.p50_ms for one in report.series if one.p50_ms], format_ms),
        _course(page, "p99", [one.p99_ms for one in report.series if one.p99_ms], format_ms),
    ]
    page.table([row for row in rows if row], "lw" if len(rows[0]) == 2 else "llw")
    failed = [f"{one.at_s:.3g} s ({one.errors:,})" for one in report.series if one.errors]
    if len(failed) == len(report.series):
        page.line(Text("errors all the time", style="red"))
    elif failed:
        more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
        page.line(Text(f"errors at {', '.join(failed[:_MOST_NAMED])}{more}", style="red"))


def show_server_timing(page: Page, report: Report) -> None:
    timing = report.server_timing
    if timing is None:
        return
    page.heading("Where the time went")
    show_times(
        page,
        [
            ("proxy", timing.proxy_ms),
            ("upstream", timing.upstream_ms),
            ("unexplained", timing.unexplained_ms),
            (timing.seen, timing.seen_ms),
        ],
    )
    page.line(_sum_of_phases(timing), hanging=2)
    of = "" if timing.answers == report.requests else f" of {timing.answers:,} answers"
    note = f"by the Server-Timing{of or ' of the answers'}; unexplained: network and generator"
    page.line(note, style="dim", hanging=2)


def _sum_of_phases(timing: ServerTiming) -> str:
    """Percentiles don't add up; means do."""
    phases = {
        "proxy": timing.proxy_ms,
        "upstream": timing.upstream_ms,
        "unexplained": timing.unexplained_ms,
    }
    text = "mean: " + " + ".join(f"{format_ms(it.mean)} {name}" for name, it in phases.items())
    if timing.seen_ms is not None:
        text += f" = {format_ms(timing.seen_ms.mean)} {timing.seen}"
    if timing.excessive:
        text += f"; {timing.excessive:,} answers told of more time than was seen"
    return text


def show_process(page: Page, report: Report) -> None:
    usage = report.process
    if usage is None:
        return
    page.heading("The target's processes")
    memory = [
        format_number(mib)
        for mib in (usage.memory_before_mib, usage.memory_peak_mib, usage.memory_after_mib)
    ]
    pids = ", ".join(str(pid) for pid in usage.pids[:_MOST_NAMED])
    more = ", …" if len(usage.pids) > _MOST_NAMED else ""
    page.table(
        [
            ["CPU", _cpu(usage)],
            ["memory", "{} MiB before, {} at most, {} after".format(*memory)],
            *([["", _memory_trend(usage)]] if usage.memory_steady_mib is not None else []),
            [Text("pid", style="dim"), Text(pids + more, style="dim")],
        ],
        "lw",
    )


def _cpu(usage: ProcessUsage) -> Text:
    cost_ms, whole_ms, share = usage.cpu_us_per_request / 1000, usage.cpu_s * 1000, cpu_share(usage)
    if share is None:
        return Text("too little in so short a run to measure")
    cost = format_ms(cost_ms, around(cost_ms, share))
    whole = format_ms(whole_ms, around(whole_ms, share))
    text = Text.assemble((cost, "bold"), f" a request, {whole} in all")
    if (hours := usage.core_hours_per_million) is not None:
        text.append(f"; {format_number(hours, around(hours, share))} core hours a million requests")
    return text


def _memory_trend(usage: ProcessUsage) -> str:
    """Of a run that was long enough to have one."""
    steady, growth = usage.memory_steady_mib, usage.memory_growth_mib_per_min
    parts = [] if steady is None else [f"steady at {format_number(steady)} MiB"]
    if growth is not None:
        parts.append(f"growth {growth:+.2f} MiB a minute")
    if usage.memory_recovered_mib is not None:
        parts.append(f"{format_number(usage.memory_recovered_mib)} after a rest")
    return ", ".join(parts)


def _cells(times: Distribution, columns: Sequence[str], spread: Mapping[str, Spread]) -> list[str]:
    return [
        format_ms(
            column(times, name),
            spread.get(name),
            signed=isinstance(times, Added),
        )
        for name in columns
    ]


def _course(
    page: Page, name: str, values: Sequence[float], show: Callable[[float], str]
) -> list[Cell]:
    if not values:
        return []
    low, high = show(min(values)), show(max(values))
    reach = low if low == high else f"{low} to {high}"
    if not page.has_blocks:
        return [name, reach]
    width = page.width - 40
    return [name, Text(sparkline(values, width), style="cyan"), reach]
