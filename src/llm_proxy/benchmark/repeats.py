"""Several runs of the same plan: the median one, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_proxy.benchmark.report import Added, Run, Side, Spread

_OF_LATENCY = ("mean", "p50", "p90", "p99")


def median_run(runs: Sequence[Run]) -> int:
    """Its index: by median latency, by rate where nothing was answered; of two the better."""
    return sorted(range(len(runs)), key=lambda index: _rank(runs[index]))[(len(runs) - 1) // 2]


def summary(side: Side, added: Added | None) -> Run:
    return Run(
        requests=side.requests,
        errors=side.errors,
        requests_per_second=side.requests_per_second,
        latency_ms=side.latency_ms,
        added_typical_ms=None if added is None else added.typical,
        goodput_share=None if side.goodput is None else side.goodput.share,
    )


def spread_of(runs: Sequence[Run]) -> dict[str, Spread]:
    """By metric, as in the report; of those that every run has."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, value in _figures(run):
            found.setdefault(name, []).append(value)
    return {
        name: Spread(low=min(values), high=max(values))
        for name, values in found.items()
        if len(values) == len(runs)
    }


def _rank(run: Run) -> tuple[float, float]:
    latency = float("inf") if run.latency_ms is None else run.latency_ms.p50
    return latency, -run.requests_per_second


def _figures(run: Run) -> Iterator[tuple[str, float]]:
    yield "requests_per_second", run.requests_per_second
    if run.latency_ms is not None:
        for name in _OF_LATENCY:
            yield f"latency_ms.{name}", getattr(run.latency_ms, name)
    if run.added_typical_ms is not None:
        yield "added_latency_ms.typical", run.added_typical_ms
    if run.goodput_share is not None:
        yield "goodput.share", run.goodput_share
