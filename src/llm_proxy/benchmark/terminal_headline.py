"""The first lines of the report: what was measured, whether to believe it, and what came out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from llm_proxy.benchmark.certainty import shares_of, spreads
from llm_proxy.benchmark.paired import FEWEST_BLOCKS
from llm_proxy.benchmark.precision import format_met, format_ms, format_rate, format_share
from llm_proxy.benchmark.report import Added, Goodput, Report, Spread
from llm_proxy.benchmark.terminal_page import Page

_LEAST_P: Final = 0.001


def show_headline(page: Page, report: Report) -> None:
    workload = report.workload
    page.heading(f"{workload.method} {workload.base_url}{workload.endpoint}")
    page.line("; ".join(_about(report)))
    _show_warnings(page, report)
    page.blank()
    page.line(_totals(report), hanging=2)
    if report.goodput is not None:
        page.line(_goodput(report, report.goodput), hanging=2)
    who = "llm-proxy" if workload.is_throwaway else "The proxy"
    for what, added in (
        ("the latency", report.added_latency_ms),
        ("the first token", report.added_ttft_ms),
        ("the time between tokens", report.added_inter_token_ms),
    ):
        if added is not None:
            page.line(_added(added, who, what), hanging=2)


def _about(report: Report) -> Iterator[str]:
    workload = report.workload
    yield report.load.description
    if workload.is_throwaway:
        yield "a throw-away server in front of the built-in mock"
    if workload.direct_url is not None:
        yield f"in turns with {workload.direct_url} (direct)"
    for count, what in ((workload.bodies, "bodies"), (workload.tokens, "tokens")):
        if count > 1:
            yield f"{count:,} {what} in turn"
    if workload.cancel_rate:
        yield f"{format_share(workload.cancel_rate)} of the streams hung up on"


def _show_warnings(page: Page, report: Report) -> None:
    if report.interrupted:
        page.blank()
        page.line(Text("Interrupted: these are the figures until then.", style="bold magenta"))
    if report.rig.verdict == "rig-bound":
        page.blank()
        warning = "RIG-BOUND: the load generator itself limited these figures."
        page.line(Text(warning, style="bold red"))
        for reason in report.rig.reasons:
            page.line(f"- {reason}", hanging=2)


def _totals(report: Report) -> Text:
    rate = format_rate(report.requests_per_second, report.spread.get("requests_per_second"))
    parts = [Text.assemble((rate, "bold"), " requests/s")]
    if report.latency_ms is not None:
        sure = spreads(report.latency_ms, shares_of(report.latency_ms, report.spread))
        for name in ("p50", "p99"):
            value = format_ms(getattr(report.latency_ms, name), sure[name])
            parts.append(Text.assemble(f"{name} ", (value, "bold")))
    return Text("   ").join([*parts, _errors(report)])


def _goodput(report: Report, goodput: Goodput) -> Text:
    of_direct = None if report.direct is None else report.direct.goodput
    # No surer than the rate that it is a share of.
    whole = report.spread.get("requests_per_second")
    sure = None if whole is None else Spread(low=0.0, high=whole.high - whole.low)
    beside = "" if of_direct is None else f" (direct {format_met(of_direct.share)})"
    return Text.assemble(
        "goodput ",
        (format_met(goodput.share), "bold"),
        f"{beside}: {format_rate(goodput.requests_per_second, sure)} requests/s with "
        + ", ".join(goodput.limits),
    )


def _errors(report: Report) -> Text:
    if not report.requests:
        return Text("no request ended", style="bold red")
    if not report.errors:
        return Text(f"no errors in {report.requests:,}")
    share = format_share(report.error_rate)
    return Text(f"{report.errors:,} of {report.requests:,} failed ({share})", style="bold red")


def _added(added: Added, who: str, what: str) -> Text:
    spread = Spread(low=added.ci95[0], high=added.ci95[1])
    p = f"p < {_LEAST_P}" if added.p_value < _LEAST_P else f"p = {added.p_value:.2g}"
    certainty = f" (95 % {_reach(spread)}, {p})"
    typical = format_ms(added.typical, spread, signed=True)
    if added.blocks < FEWEST_BLOCKS:
        return Text(
            f"Too few pairs to find a difference in {what}: {added.count}, typically {typical}"
        )
    if not added.is_found:
        return Text.assemble(f"No difference was found in {what}: ", (typical, "bold"), certainty)
    verb, way = ("adds", "to") if added.typical > 0 else ("takes", "off")
    typical = format_ms(abs(added.typical), spread)
    return Text.assemble(f"{who} {verb} ", (typical, "bold"), f" {way} {what}", certainty)


def _reach(spread: Spread) -> str:
    """`101 to 119 µs`."""
    low, high = format_ms(spread.low, spread), format_ms(spread.high, spread)
    number, _, unit = low.partition(" ")
    return f"{number if high.endswith(f' {unit}') else low} to {high}"
