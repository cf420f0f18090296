from __future__ import annotations

import re
from html.parser import HTMLParser

from llm_proxy.benchmark.html_report import html
from llm_proxy.benchmark.report import Check
from tests.benchmark.reports import (
    make_comparison,
    make_distribution,
    make_find_max,
    make_frontier,
    make_goodput,
    make_report,
    make_rig,
    make_runs,
    make_series,
    make_side,
    make_stream_report,
    make_workload,
)

VOID = {"meta"}
EVERYTHING = {
    "runs": make_runs(),
    "find_max": make_find_max(),
    "frontier": make_frontier(),
    "comparison": make_comparison(),
}


class _Page(HTMLParser):
    """What a browser sees; fails on an element that isn't closed in its turn."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)
        if "style" not in self.open:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _attributes in self.elements)


def test_a_full_report_has_every_section_and_chart() -> None:
    page = _Page(html(make_stream_report(**EVERYTHING)))
    assert page.headings == [
        "POST /v1/chat/completions",
        "Checks",
        "Latency",
        "What the proxy adds",
        "Streams",
        "Fidelity",
        "Where the time went",
        "Compared with an earlier report",
        "The highest rate",
        "The highest rate within each limit of p99",
        "Repeats",
        "Answers",
        "The target's processes",
        "How it was measured",
    ]
    assert page.count("figure") == 5
    assert page.count("svg") == 5 + 3 + 1


def test_goodput_is_among_the_first_figures() -> None:
    page = html(make_report(goodput=make_goodput())).decode()
    assert '<span class="label">goodput</span><span class="value">97.3 %</span>' in page
    assert "195 requests/s with latency&lt;=50ms, ttft&lt;=200ms" in page


def test_a_plain_report_has_only_what_was_measured() -> None:
    report = make_report(
        direct=None,
        added_latency_ms=None,
        fidelity=None,
        server_timing=None,
        process=None,
        checks=(),
        series=make_series(direct_p50_ms=None, direct_p99_ms=None),
    )
    page = _Page(html(report))
    assert page.headings == [
        *("POST /v1/chat/completions", "Latency", "Answers", "How it was measured")
    ]
    assert "direct" not in page.text


def test_the_headline_has_the_main_figures() -> None:
    text = _Page(html(make_report())).text
    for words in ("requests/s200", "194 to 206", "latency p50520 µs", "added by the proxy110 µs"):
        assert words in text
    assert "errors0.1 %2 of 2,000" in text


def test_the_page_needs_nothing_but_itself() -> None:
    document = html(make_stream_report(**EVERYTHING))
    page = _Page(document)
    names = {tag for tag, _attributes in page.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "form", "a", "use", "image"}
    attributes = {name for _tag, attributes in page.elements for name in attributes}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "href")}
    assert not re.search(rb"url\(|@import|@font-face", document)


def test_it_is_made_for_both_colour_schemes_paper_and_telephones() -> None:
    document = html(make_report()).decode()
    for words in ("prefers-color-scheme: dark", "@media print", "max-width: 760px"):
        assert words in document
    assert 'content="width=device-width, initial-scale=1"' in document
    assert document.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">')


def test_every_text_is_escaped() -> None:
    evil = "<script>alert('x')</script><img src=x onerror=y>"
    report = make_report(
        command=evil,
        workload=make_workload(base_url=evil, direct_url=evil, endpoint=evil, preset=evil),
        checks=(Check(kind="slo", name=evil, passed=False, message=evil),),
        rig=make_rig(verdict="rig-bound", reasons=(evil,)),
        comparison=make_comparison(file=evil, warnings=(evil,)),
        status_codes={evil: 1},
        error_kinds={evil: 1},
    )
    page = _Page(html(report))
    assert page.count("script") == page.count("img") == 0
    assert page.text.count(evil) == 12


def test_a_rig_bound_run_says_so_before_its_figures() -> None:
    rig = make_rig(verdict="rig-bound", reasons=("A generator process used 93 % of a core.",))
    text = _Page(html(make_report(rig=rig))).text
    assert "limited these figures: A generator process used 93 % of a core." in text
    assert text.index("Rig-bound: ") < text.index("latency p50")
    assert "Rig-bound" not in _Page(html(make_report())).text


def test_a_service_time_that_is_the_latency_is_shown_once() -> None:
    assert "direct: service" in _Page(html(make_report())).text
    latency = make_distribution(1.0)
    direct = make_side(median_ms=1.0, latency_ms=latency, service_ms=latency)
    text = _Page(html(make_report(direct=direct))).text
    assert "direct: latency" in text
    assert "direct: service" not in text


def test_an_interrupted_run_says_so() -> None:
    assert "ended early" in _Page(html(make_report(interrupted=True))).text


def test_nothing_answered_is_a_page_too() -> None:
    report = make_report(
        latency_ms=None,
        service_ms=None,
        first_byte_ms=None,
        histogram=None,
        cdf=(),
        spread={},
        direct=None,
        requests=0,
        errors=0,
        error_rate=0.0,
        requests_per_second=0.0,
        series=make_series(length=0),
    )
    page = _Page(html(report))
    assert "No request was answered below 400" in page.text
    assert page.count("figure") == 0


def test_how_it_was_measured_is_at_the_end() -> None:
    text = _Page(html(make_report())).text
    end = text[text.index("How it was measured") :]
    for words in ("seed42", "Example CPU 3000", "llm-proxy benchmark --concurrency 10", "uvloop"):
        assert words in end
