"""`--hdr`: the run's histograms as an HdrHistogram log, format 1.3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llm_proxy.benchmark.report import Report

if TYPE_CHECKING:
    from llm_proxy.benchmark.hdr_histogram import HdrHistogram


def hdr_log(histograms: Mapping[str, HdrHistogram], report: Report) -> bytes:
    """By tag: `proxied.latency`, `proxied.service`, `direct.latency` …"""
    raise NotImplementedError
