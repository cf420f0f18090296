"""The report for people: on a terminal, and as plain aligned text in a pipe."""

from __future__ import annotations

from typing import Final

from rich.console import Console

from llm_proxy.benchmark.report import Report
from llm_proxy.benchmark.terminal_answers import show_answers
from llm_proxy.benchmark.terminal_ending import show_checks, show_circumstances, show_generator
from llm_proxy.benchmark.terminal_figures import (
    show_histogram,
    show_latency,
    show_process,
    show_series,
    show_server_timing,
)
from llm_proxy.benchmark.terminal_frontier import show_frontier
from llm_proxy.benchmark.terminal_headline import show_headline
from llm_proxy.benchmark.terminal_page import Page
from llm_proxy.benchmark.terminal_runs import show_comparison, show_find_max, show_runs
from llm_proxy.benchmark.terminal_streams import show_streams

_SECTIONS: Final = (
    *(show_headline, show_find_max, show_frontier, show_latency, show_histogram, show_series),
    *(show_streams, show_answers, show_server_timing, show_process),
    *(show_runs, show_comparison, show_checks, show_generator, show_circumstances),
)


def print_report(report: Report, console: Console) -> None:
    """Only the sections that were measured."""
    page = Page(console)
    for show in _SECTIONS:
        show(page, report)
