"""The streams of a run: how soon they spoke, how evenly, and how they ended."""

from __future__ import annotations

from rich.text import Text

from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.report import Distribution, Report, Streams
from llm_proxy.benchmark.terminal_figures import NamedDistribution, show_times
from llm_proxy.benchmark.terminal_page import Page


def show_streams(page: Page, report: Report) -> None:
    streams = report.streams
    if streams is None:
        return
    page.heading("Streams")
    direct = None if report.direct is None else report.direct.streams
    rows = [
        *_group("first token", streams.ttft_ms, direct and direct.ttft_ms, report.added_ttft_ms),
        *_group("second token", streams.second_token_ms, direct and direct.second_token_ms, None),
        *_group(
            "inter-token",
            streams.inter_token_ms,
            direct and direct.inter_token_ms,
            report.added_inter_token_ms,
        ),
    ]
    if any(times for _name, times in rows):
        show_times(page, rows)
    page.line(_amounts(streams), hanging=2)
    page.line(_endings(streams), hanging=2)


def _group(
    name: str,
    times: Distribution | None,
    direct: Distribution | None,
    added: Distribution | None,
) -> list[NamedDistribution]:
    return [(name, times), ("  direct", direct), ("  added", added)]


def _amounts(streams: Streams) -> Text:
    rate = format_rate(streams.tokens_per_second)
    text = Text.assemble(f"{streams.tokens:,} tokens, ", (rate, "bold"), " a second")
    each = streams.tokens_per_second_per_stream
    if each is not None:
        text.append(f"; of one stream {format_rate(each.p50)} (p50), {format_rate(each.min)} (min)")
    return text


def _endings(streams: Streams) -> Text:
    """What went wrong is red."""
    parts = [
        _counted(streams.stalls, f"stalls in {streams.stalled_streams:,} streams", "magenta"),
        _counted(streams.cut, "cut", "red"),
        _counted(streams.broken, "without a proper end", "red"),
    ]
    if streams.cancelled:
        parts.append(_counted(streams.cancelled, "hung up on, as asked", ""))
    return Text(", ").join(parts)


def _counted(count: int, what: str, style: str) -> Text:
    if not count:
        return Text(f"no {what.partition(' in ')[0]}" if what.startswith("stalls") else f"0 {what}")
    return Text(f"{count:,} {what}", style=style)
