"""The report for people: on a terminal, and as plain aligned text in a pipe."""

from __future__ import annotations

from rich.console import Console

from llm_proxy.benchmark.report import Report


def print_report(report: Report, console: Console) -> None:
    """Only the sections that were measured."""
    raise NotImplementedError
