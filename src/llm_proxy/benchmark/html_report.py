"""`--html`: a page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from xml.etree.ElementTree import Element

from llm_proxy.benchmark import html_runs as runs
from llm_proxy.benchmark import html_sections as parts
from llm_proxy.benchmark import svg_charts as charts
from llm_proxy.benchmark.certainty import shares_of, spreads
from llm_proxy.benchmark.html_frontier import frontier_section
from llm_proxy.benchmark.html_tables import counted, distributions, facts, mark, section
from llm_proxy.benchmark.markup import html_document, node
from llm_proxy.benchmark.precision import format_met, format_ms, format_rate, format_share
from llm_proxy.benchmark.report import Distribution, Report, RigVerdict, Side, Spread


def html(report: Report) -> bytes:
    return html_document(node("html", _head(report), _body(report), lang="en"))


def _head(report: Report) -> Element:
    return node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("title", f"{_subject(report)} · llm-proxy benchmark"),
        node("style", resources.files(__package__).joinpath("report.css").read_text("utf-8")),
    )


def _body(report: Report) -> Element:
    sections = (
        _latency(report),
        parts.added_section(report),
        parts.streams_section(report),
        parts.fidelity_section(report),
        parts.server_timing_section(report),
        runs.comparison_section(report),
        runs.find_max_section(report),
        frontier_section(report),
        runs.runs_section(report),
        parts.answers_section(report),
        parts.process_section(report),
        _conditions(report),
    )
    return node("body", _header(report), node("main", _checks(report), *sections))


def _header(report: Report) -> Element:
    target = [report.workload.base_url, report.load.description, report.started_at]
    if report.workload.direct_url:
        target.insert(1, f"beside {report.workload.direct_url}")
    return node(
        "header",
        node("p", "llm-proxy benchmark", class_="kicker"),
        node("h1", _subject(report)),
        node("p", " · ".join(target), class_="note"),
        *_warnings(report),
        node("div", *_tiles(report), class_="tiles"),
    )


def _subject(report: Report) -> str:
    return f"{report.workload.method} {report.workload.endpoint}"


def _warnings(report: Report) -> Iterable[Element]:
    if report.rig.verdict == "rig-bound":
        title = node("strong", "Rig-bound: ")
        reasons = "; ".join(reason.rstrip(".") for reason in report.rig.reasons)
        text = f"the load generator itself limited these figures: {reasons}."
        yield node("p", "⚠ ", title, text, class_="warning")
    if report.interrupted:
        text = "The run was ended early: this is what was measured until then."
        yield node("p", "⚠ ", text, class_="warning")


def _tiles(report: Report) -> Iterable[Element]:
    latency, spread = report.latency_ms, report.spread
    rate = format_rate(report.requests_per_second, spread.get("requests_per_second"))
    yield _tile("requests/s", rate, _range(report, "requests_per_second"))
    if latency is not None:
        known = spreads(latency, shares_of(latency, spread))
        for name in ("p50", "p99"):
            text = format_ms(getattr(latency, name), known[name])
            yield _tile(f"latency {name}", text, _range(report, f"latency_ms.{name}"))
    if report.added_latency_ms is not None:
        added = report.added_latency_ms
        sure = Spread(low=added.ci95[0], high=added.ci95[1])
        low, high = (format_ms(value, sure) for value in added.ci95)
        text = format_ms(added.typical, sure) if added.is_found else "nothing found"
        yield _tile("added by the proxy", text, f"95 %: {low} to {high}")
    if report.streams is not None and report.streams.ttft_ms is not None:
        ttft = report.streams.ttft_ms
        yield _tile("first token p50", format_ms(ttft.p50), f"p99 {format_ms(ttft.p99)}")
    if report.goodput is not None:
        good = format_rate(report.goodput.requests_per_second)
        note = f"{good} requests/s with {', '.join(report.goodput.limits)}"
        yield _tile("goodput", format_met(report.goodput.share), note)
    if report.find_max is not None:
        highest = report.find_max.rate
        text = "none" if highest is None else f"{format_rate(highest)}/s"
        yield _tile("highest rate", text, ", ".join(report.find_max.slo))
    yield _tile(
        "errors", format_share(report.error_rate), f"{report.errors:,} of {report.requests:,}"
    )


def _tile(name: str, value: str, note: str | None) -> Element:
    return node(
        "div",
        node("span", name, class_="label"),
        node("span", value, class_="value"),
        node("span", note, class_="note") if note else None,
        class_="tile",
    )


def _range(report: Report, name: str) -> str | None:
    spread = report.spread.get(name)
    if spread is None:
        return None
    show = format_rate if name == "requests_per_second" else format_ms
    return f"{show(spread.low)} to {show(spread.high)}"


def _checks(report: Report) -> Element | None:
    if not report.checks:
        return None
    items = (
        node("li", mark(check.passed), " ", node("strong", check.name), " ", check.message)
        for check in report.checks
    )
    return section("Checks", node("ul", *items, class_="checks"))


def _latency(report: Report) -> Element:
    direct = report.direct
    drawn = (
        charts.cdf_chart(report),
        charts.histogram_chart(report),
        charts.latency_chart(report),
        charts.rate_chart(report),
    )
    rows = {
        "latency": report.latency_ms,
        "service": _other_service(report),
        "first byte": report.first_byte_ms,
        "direct: latency": direct.latency_ms if direct else None,
        "direct: service": _other_service(direct) if direct else None,
    }
    if report.latency_ms is None:
        text = "No request was answered below 400: there is no latency to show."
        return section("Latency", node("p", text), node("div", *drawn, class_="charts"))
    note = (
        "Latency counts from when a request was meant to be sent, service from when it was. "
        "Only answers below 400 count."
    )
    return section(
        "Latency",
        distributions(rows, known=shares_of(report.latency_ms, report.spread)),
        node("p", note, class_="note"),
        node("div", *drawn, class_="charts"),
    )


def _other_service(side: Side) -> Distribution | None:
    """In a closed load nothing is sent late: one of two equal rows is enough."""
    return None if side.service_ms == side.latency_ms else side.service_ms


def _conditions(report: Report) -> Element:
    environment, load, workload = report.environment, report.load, report.workload
    average = environment.load_average
    return section(
        "How it was measured",
        facts(
            {
                "load": f"{load.description}; {load.warm_up_s:g} s of warm-up",
                "workload": _workload(report),
                "cancelled": format_share(workload.cancel_rate) if workload.cancel_rate else None,
                "generator": _generator(report.rig),
                "llm-proxy": environment.llm_proxy,
                "Python": f"{environment.python}, {environment.event_loop}",
                "system": f"{environment.system}, {environment.machine}",
                "CPU": f"{environment.cpu}, {counted(environment.cpus, 'core')}",
                "memory": f"{environment.memory_mib:,} MiB",
                "load average": " ".join(f"{it:.2f}" for it in average) if average else None,
                "seed": str(report.seed),
            }
        ),
        node("pre", report.command),
    )


def _generator(rig: RigVerdict) -> str:
    processes = counted(rig.processes, "process|processes")
    mock = "" if rig.mock_cpu_share is None else f"; the mock at {rig.mock_cpu_share:.0%} of one"
    return (
        f"{rig.verdict}; {processes}, the busiest at {rig.cpu_share:.0%} of a core, its loop late "
        f"by {format_ms(rig.loop_lag_p99_ms)} (p99); {rig.unsent:,} unsent, "
        f"{counted(rig.reconnects, 'reconnect')}{mock}"
    )


def _workload(report: Report) -> str:
    it = report.workload
    words = [counted(it.bodies, "request body|request bodies"), counted(it.tokens, "token")]
    if it.preset:
        words.insert(0, f"preset {it.preset}")
    if it.stream:
        words.append("streams")
    if it.is_throwaway:
        words.append("a throw-away server in front of the built-in mock")
    return ", ".join(words)
