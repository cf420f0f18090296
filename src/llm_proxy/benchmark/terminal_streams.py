"""The streams of a run: how soon they spoke, how evenly, and how they ended."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.report import Distribution, HangUps, Report, Streams
from llm_proxy.benchmark.terminal_figures import show_times
from llm_proxy.benchmark.terminal_page import Page

_TIMES: Final = {
    "first token": "ttft_ms",
    "second token": "second_token_ms",
    "inter-token": "inter_token_ms",
}


def show_streams(page: Page, report: Report) -> None:
    streams = report.streams
    if streams is None:
        return
    page.heading("Streams")
    direct = None if report.direct is None else report.direct.streams
    added = {"ttft_ms": report.added_ttft_ms, "inter_token_ms": report.added_inter_token_ms}
    rows = [
        (label, times)
        for name, field in _TIMES.items()
        for label, times in (
            (name, _times(streams, field)),
            ("  direct", _times(direct, field)),
            ("  added", added.get(field)),
        )
    ]
    if any(times for _name, times in rows):
        show_times(page, rows)
    page.line(_amounts(streams), hanging=2)
    page.line(_endings(streams), hanging=2)
    if report.hang_ups is not None:
        page.line(_hang_ups(report.hang_ups), hanging=2)


def _times(streams: Streams | None, field: str) -> Distribution | None:
    found: Distribution | None = getattr(streams, field, None)
    return found


def _amounts(streams: Streams) -> Text:
    rate = format_rate(streams.tokens_per_second)
    text = Text.assemble(f"{streams.tokens:,} tokens, ", (rate, "bold"), " a second")
    each = streams.tokens_per_second_per_stream
    if each is not None:
        text.append(f"; of one stream {format_rate(each.p50)} (p50), {format_rate(each.min)} (min)")
    return text


def _endings(streams: Streams) -> Text:
    """What went wrong is in colour."""
    where = f" in {streams.stalled_streams:,} streams" if streams.stalls else ""
    parts = [
        Text(f"{streams.stalls:,} stalls{where}", style="magenta" if streams.stalls else ""),
        Text(f"{streams.cut:,} cut", style="red" if streams.cut else ""),
        Text(f"{streams.broken:,} without a proper end", style="red" if streams.broken else ""),
    ]
    if streams.cancelled:
        parts.append(Text(f"{streams.cancelled:,} hung up on by the generator"))
    return Text(", ").join(parts)


def _hang_ups(found: HangUps) -> Text:
    text = Text(f"Hang-ups: {found.sent:,} sent, ")
    if found.seen_upstream is None:
        return text.append("this upstream can't be asked whether it saw them")
    style = "magenta" if found.seen_upstream < found.sent else ""
    return text.append(f"{found.seen_upstream:,} seen by the upstream", style=style)
