"""`--html`: a page that needs nothing but itself."""

from __future__ import annotations

from llm_proxy.benchmark.report import Report


def html(report: Report) -> bytes:
    raise NotImplementedError
