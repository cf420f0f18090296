"""The sections of the HTML report about one run, if it measured them."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from llm_proxy.benchmark.certainty import around, cpu_share
from llm_proxy.benchmark.html_tables import (
    counted,
    difference,
    distributions,
    facts,
    mark,
    section,
    table,
)
from llm_proxy.benchmark.interval_chart import interval_chart
from llm_proxy.benchmark.markup import Child, node
from llm_proxy.benchmark.precision import (
    format_ms,
    format_number,
    format_rate,
    format_share,
)
from llm_proxy.benchmark.report import Distribution, HangUps, Report, Streams
from llm_proxy.benchmark.svg_axes import WIDTH
from llm_proxy.benchmark.svg_figure import drawing


def added_section(report: Report) -> Element | None:
    differences = {
        "Latency": ("to the latency", report.added_latency_ms),
        "Time to the first token": ("to the time to the first token", report.added_ttft_ms),
        "Between tokens": ("between two tokens", report.added_inter_token_ms),
    }
    parts: list[Child] = []
    for name, (what, added) in differences.items():
        if added is not None:
            parts += [node("h3", name), difference(what, added), interval_chart(name, added)]
    if not parts:
        return None
    parts.append(distributions({name: added for name, (_what, added) in differences.items()}))
    note = "Differences of pairs, proxied minus direct; the two sides take turns (ABBA)."
    return section("What the proxy adds", node("p", note, class_="note"), *parts)


def streams_section(report: Report) -> Element | None:
    sides = {"": report.streams, "direct: ": report.direct.streams if report.direct else None}
    rows: dict[str, Distribution | None] = {}
    for prefix, streams in sides.items():
        if streams is not None:
            rows[f"{prefix}first token"] = streams.ttft_ms
            rows[f"{prefix}second token"] = streams.second_token_ms
            rows[f"{prefix}between tokens"] = streams.inter_token_ms
    if report.streams is None:
        return None
    return section("Streams", distributions(rows), _stream_facts(report.streams, report.hang_ups))


def fidelity_section(report: Report) -> Element | None:
    fidelity = report.fidelity
    if fidelity is None:
        return None
    if fidelity.verdict == "equal":
        text = (
            f"{fidelity.compared:,} answers through the proxy were the same bytes as direct ones."
        )
    elif fidelity.verdict == "different":
        which = ", ".join(str(body) for body in fidelity.bodies)
        text = (
            f"{fidelity.different:,} of {fidelity.compared:,} answers through the proxy weren't "
            f"the bytes that came directly; request bodies (from 0): {which}."
        )
    else:
        text = f"Not comparable: {fidelity.reason or 'there was nothing to compare'}."
    verdict = None if fidelity.verdict == "not comparable" else mark(fidelity.verdict == "equal")
    return section("Fidelity", node("p", verdict, " ", text))


def server_timing_section(report: Report) -> Element | None:
    timing = report.server_timing
    if timing is None:
        return None
    parts = {
        "proxy": timing.proxy_ms,
        "upstream": timing.upstream_ms,
        "unexplained": timing.unexplained_ms,
    }
    excess = (
        f" {timing.excessive:,} of them told of more time than was seen."
        if timing.excessive
        else ""
    )
    return section(
        "Where the time went",
        node("p", f"By the Server-Timing of {timing.answers:,} answers.{excess}", class_="note"),
        _shares({name: it.mean for name, it in parts.items()}),
        distributions({**parts, f"all: {timing.seen}": timing.seen_ms}),
    )


def answers_section(report: Report) -> Element:
    """By status, and errors by kind."""
    kinds = {**report.status_codes, **report.error_kinds}
    direct = report.direct
    rows: list[list[Child]] = []
    for name in kinds:
        cells = [f"{_count(report.status_codes, report.error_kinds, name):,}"]
        if direct is not None:
            cells.append(f"{_count(direct.status_codes, direct.error_kinds, name):,}")
        rows.append([name if name.isdigit() else f"error: {name}", *cells])
    head = ["", "proxied", "direct"] if direct else ["", "requests"]
    traffic = facts(
        {
            "requests": f"{report.requests:,}",
            "errors": f"{report.errors:,} ({format_share(report.error_rate)})",
            "cancelled": f"{report.cancelled:,}" if report.cancelled else None,
            "bytes sent": f"{report.bytes_sent:,}",
            "bytes received": f"{report.bytes_received:,}",
        }
    )
    return section("Answers", table(head, rows), traffic)


def process_section(report: Report) -> Element | None:
    usage = report.process
    if usage is None:
        return None
    cost_ms, whole_ms, share = usage.cpu_us_per_request / 1000, usage.cpu_s * 1000, cpu_share(usage)
    memory = (usage.memory_before_mib, usage.memory_peak_mib, usage.memory_after_mib)
    steady, growth = usage.memory_steady_mib, usage.memory_growth_mib_per_min
    hours, rested = usage.core_hours_per_million, usage.memory_recovered_mib
    return section(
        "The target's processes",
        facts(
            {
                "CPU per request": None
                if share is None
                else format_ms(cost_ms, around(cost_ms, share)),
                "CPU per million requests": None
                if share is None or hours is None
                else f"{format_number(hours, around(hours, share))} core hours",
                "CPU": "too little in so short a run to measure"
                if share is None
                else format_ms(whole_ms, around(whole_ms, share)),
                "memory before · peak · after": " · ".join(f"{it:.1f}" for it in memory)
                + f" MiB ({usage.memory_kind.upper()})",
                "memory in the second half": None if steady is None else f"{steady:.1f} MiB",
                "memory growth": None if growth is None else f"{growth:+.2f} MiB a minute",
                "memory after a rest": None if rested is None else f"{rested:.1f} MiB",
                "processes": ", ".join(map(str, usage.pids)),
            }
        ),
    )


def _shares(means: dict[str, float]) -> Element:
    """The means lie end to end: they add up, as percentiles don't."""
    whole = sum(max(mean, 0.0) for mean in means.values()) or 1.0
    text = ", ".join(f"{name} {max(mean, 0.0) / whole:.0%}" for name, mean in means.items())
    bar = drawing(text, height=44, class_="shares")
    at = 0.0
    for name, mean in means.items():
        width = max(mean, 0.0) / whole * WIDTH
        bar.append(node("rect", x=at, y=4, width=width, height=14, class_=f"share {name}"))
        if width > 8 * len(f"{name} 00%"):  # else it would run into the next one
            bar.append(
                node("text", f"{name} {width / WIDTH:.0%}", x=at + 2, y=34, class_="axis-name")
            )
        at += width
    return bar


def _stream_facts(streams: Streams, hang_ups: HangUps | None) -> Element:
    per_stream = streams.tokens_per_second_per_stream
    return facts(
        {
            "tokens": f"{streams.tokens:,}",
            "tokens/s": format_rate(streams.tokens_per_second),
            "tokens/s of one stream (p50)": format_rate(per_stream.p50) if per_stream else None,
            "stalls": f"{streams.stalls:,} in {counted(streams.stalled_streams, 'stream')}",
            "cut": f"{streams.cut:,}",
            "broken": f"{streams.broken:,}",
            "cancelled": f"{streams.cancelled:,}" if streams.cancelled else None,
            "hang-ups": None if hang_ups is None else _seen(hang_ups),
        }
    )


def _seen(hang_ups: HangUps) -> str:
    sent, seen = hang_ups.sent, hang_ups.seen_upstream
    return f"{sent:,} sent" + ("" if seen is None else f", {seen:,} seen by the upstream")


def _count(statuses: dict[str, int], errors: dict[str, int], name: str) -> int:
    return statuses.get(name, errors.get(name, 0))
