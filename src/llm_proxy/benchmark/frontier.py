"""`--frontier`: the highest rate within each of several limits of the p99 latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_proxy.benchmark.metric import Metric
from llm_proxy.benchmark.rate_search import Answer, Keeps, RateSearch
from llm_proxy.benchmark.report import Frontier, FrontierPoint, Probe
from llm_proxy.benchmark.thresholds import Threshold, parse_ms
from llm_proxy.errors import WrongUsage

MOST_PROBES: Final = 40
MOST_LIMITS: Final = 10
_P99: Final = Metric("latency", "p99")
_LONGEST_MS: Final = 3_600_000.0  # what histograms hold


def parse_limits(text: str) -> tuple[float, ...]:
    """`1ms,5ms,10ms`, ascending. Raises WrongUsage."""
    parts = text.split(",")
    if len(parts) > MOST_LIMITS:
        raise WrongUsage(f"--frontier takes at most {MOST_LIMITS} limits, not {len(parts)}")
    limits_ms: list[float] = []
    for part in parts:
        try:
            limit_ms = parse_ms(part)
        except ValueError as exc:
            raise WrongUsage(f"--frontier: {exc}, several like 1ms,10ms,100ms") from None
        if not 0 < limit_ms <= _LONGEST_MS:
            raise WrongUsage(
                f"--frontier: a limit must be more than 0ms and at most 1h, not {part.strip()!r}"
            )
        if limit_ms in limits_ms:
            raise WrongUsage(f"--frontier has {part.strip()!r} twice; give each limit once")
        limits_ms.append(limit_ms)
    return tuple(sorted(limits_ms))


def limit_text(limit_ms: float) -> str:
    """`5 ms`."""
    return _P99.show(limit_ms)


def limit_name(limit_ms: float) -> str:
    """`p99<=5ms`."""
    return Threshold(metric=_P99, limit=limit_ms).name


def keeps_p99(limit_ms: float) -> Keeps:
    """And whatever else is asked of a probe."""

    def keeps(probe: Probe) -> bool:
        latency_ms = probe.latency_ms
        return probe.passed and latency_ms is not None and latency_ms.p99 <= limit_ms

    return keeps


def frontier(search: RateSearch, limits_ms: Sequence[float]) -> Frontier:
    """What a search with `keeps_p99` of each limit found."""
    points = tuple(
        _point(search, limit_ms, answer)
        for limit_ms, answer in zip(limits_ms, search.answers, strict=True)
    )
    return Frontier(points=points, probes=tuple(search.probes), note=_note(search, points))


def _point(search: RateSearch, limit_ms: float, answer: Answer) -> FrontierPoint:
    keeps = keeps_p99(limit_ms)
    noise = search.noise(keeps)
    window = None
    if answer.rate is not None:
        window = search.probes[search.window(keeps, answer.rate)]
    return FrontierPoint(
        p99_limit_ms=limit_ms,
        rate=answer.rate,
        requests_per_second=None if window is None else window.requests_per_second,
        latency_ms=None if window is None else window.latency_ms,
        confirmed=answer.confirmed,
        is_noisy=bool(noise),
        note=f"{answer.note} {noise}".rstrip(),
    )


def _note(search: RateSearch, points: Sequence[FrontierPoint]) -> str:
    confirmed = sum(point.confirmed for point in points)
    note = (
        f"Confirmed: the rates of {confirmed} of {len(points)} limits, with {len(search.probes)} "
        f"probes ({MOST_PROBES} at most)."
    )
    if any(point.is_noisy for point in points):
        note += " Some rates kept a limit that lower ones missed: there was noise."
    return note
