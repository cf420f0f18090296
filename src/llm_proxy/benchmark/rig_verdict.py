"""Whether the generator itself was the bottleneck, so that the figures are its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from llm_proxy.benchmark.precision import format_ms, format_number, format_share, rounded
from llm_proxy.benchmark.report import Distribution, RigVerdict
from llm_proxy.benchmark.samples import RigFigures

_MOST_CPU: Final = 0.85
_MOST_SHARE: Final = 0.1  # of the median latency, that the rig may add to it
_NEVER_MIND_MS: Final = 1.0  # … and that is no matter, however short the latency
_MOST_DRIFT: Final = 2.0


def rig_verdict(
    figures: Sequence[RigFigures],
    *,
    median_ms: float | None,
    late_ms: Distribution | None,
    baseline_p99_ms: tuple[float, float] | None = None,
) -> RigVerdict:
    """`baseline_p99_ms` is direct p99 in the first and the last third of a steady paired run."""
    shares = {one.process: one.cpu_s / one.wall_s if one.wall_s > 0 else 0.0 for one in figures}
    reasons = [
        *_busy(shares),
        *_lag(figures, median_ms),
        *_late(figures, median_ms),
        *_unsent(figures),
        *_drift(baseline_p99_ms),
    ]
    return RigVerdict(
        verdict="rig-bound" if reasons else "ok",
        reasons=tuple(reasons),
        processes=len(figures),
        cpu_share=rounded(max(shares.values(), default=0.0)),
        loop_lag_p50_ms=rounded(max((one.lag_p50_ms for one in figures), default=0.0)),
        loop_lag_p99_ms=rounded(max((one.lag_p99_ms for one in figures), default=0.0)),
        loop_lag_max_ms=rounded(max((one.lag_max_ms for one in figures), default=0.0)),
        late_ms=late_ms,
        unsent=sum(one.unsent for one in figures),
        reconnects=sum(one.reconnects for one in figures),
    )


def _busy(shares: dict[int, float]) -> Iterator[str]:
    busy = [share for share in shares.values() if share > _MOST_CPU]
    if busy:
        yield (
            f"{len(busy)} of {len(shares)} generator processes used up to "
            f"{format_share(max(busy))} of a core: more --processes, or less load"
        )


def _lag(figures: Sequence[RigFigures], median_ms: float | None) -> Iterator[str]:
    lag_ms = max((one.lag_p99_ms for one in figures), default=0.0)
    if _matters(lag_ms, median_ms):
        yield (
            f"the generator's event loop ran {format_ms(lag_ms)} late (p99), "
            f"which is {_share_of_median(lag_ms, median_ms)}"
        )


def _late(figures: Sequence[RigFigures], median_ms: float | None) -> Iterator[str]:
    """Only of arrivals that had a free slot: for the others the target is to blame."""
    late_ms = max((one.late_p99_ms for one in figures), default=0.0)
    if _matters(late_ms, median_ms):
        yield (
            f"requests were sent {format_ms(late_ms)} after they were due (p99), "
            f"which is {_share_of_median(late_ms, median_ms)}"
        )


def _unsent(figures: Sequence[RigFigures]) -> Iterator[str]:
    unsent = sum(one.unsent for one in figures)
    if unsent:
        yield (
            f"{unsent:,} arrivals were never sent, since as many requests were under way as the "
            "generator may have: the offered rate was not reached"
        )


def _drift(baseline_p99_ms: tuple[float, float] | None) -> Iterator[str]:
    if baseline_p99_ms is None or min(baseline_p99_ms) <= 0:
        return
    first, last = baseline_p99_ms
    if max(first, last) / min(first, last) > _MOST_DRIFT:
        yield (
            f"the baseline itself drifted: direct p99 was {format_ms(first)} in the first third "
            f"of the run and {format_ms(last)} in the last"
        )


def _matters(ms: float, median_ms: float | None) -> bool:
    return median_ms is not None and ms > max(_NEVER_MIND_MS, _MOST_SHARE * median_ms)


def _share_of_median(ms: float, median_ms: float | None) -> str:
    if not median_ms:
        return "more than any latency"
    times = ms / median_ms
    text = format_share(times) if times < 1 else f"{format_number(times)} times"
    return f"{text} {'of ' if times < 1 else ''}the median latency"
