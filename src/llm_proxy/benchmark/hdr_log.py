"""`--hdr`: the run's histograms as an HdrHistogram log, format 1.3."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import datetime

from llm_proxy import __version__
from llm_proxy.benchmark.hdr_histogram import HdrHistogram
from llm_proxy.benchmark.report import Report
from llm_proxy.benchmark.samples import TICKS_PER_MS


def hdr_log(histograms: Mapping[str, HdrHistogram], report: Report) -> bytes:
    """A line for each histogram that holds something; the names are its tags."""
    lines = [*_comments(report), *_intervals(histograms, report.duration_s)]
    return "".join(f"{line}\n" for line in lines).encode()


def _comments(report: Report) -> Iterator[str]:
    started = datetime.fromisoformat(report.started_at)
    seconds = f"{started.timestamp():.3f} (seconds since epoch)"
    yield "#[Histogram log format version 1.3]"
    yield f"#[Logged by llm-proxy {__version__} benchmark]"
    # Readers take a line for one of theirs by its "#[": what is the user's goes after "# ".
    yield f"# {' '.join(report.command.split())}"
    yield f"#[Values are multiples of 100 ns: {TICKS_PER_MS} of them are a millisecond]"
    yield f"#[BaseTime: {seconds}]"
    yield f"#[StartTime: {seconds}, {report.started_at}]"
    yield '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'


def _intervals(histograms: Mapping[str, HdrHistogram], length_s: float) -> Iterator[str]:
    for tag, histogram in histograms.items():
        if histogram.count:
            most_ms = histogram.max / TICKS_PER_MS
            payload = b64encode(histogram.encode_v2()).decode()
            yield f"Tag={tag},0.000,{length_s:.3f},{most_ms:.3f},{payload}"
