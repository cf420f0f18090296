"""Whether the generator itself was the bottleneck, so that the figures are its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from llm_proxy.benchmark.precision import format_ms, format_rate, format_share, rounded
from llm_proxy.benchmark.report import Distribution, RigVerdict
from llm_proxy.benchmark.samples import RigFigures

_MOST_CPU: Final = 0.85
_SHORTEST_S: Final = 0.1  # the CPU time of less is that of beginning and ending
_MOST_OF_MEDIAN: Final = 0.1  # that the rig may add to it
_MOST_OF_TAIL: Final = 0.5  # … of the p99 latency
_NO_MATTER_MS: Final = 0.25  # as a median, however short the latency is
_NO_MATTER_TAIL_MS: Final = 1.0
_FEWEST_TICKS: Final = 50  # half a second: percentiles of fewer say nothing
_MOST_DRIFT: Final = 2.0
_ADVICE: Final = {
    False: "leave it a core of its own, or use another machine",
    True: "the throw-away server and its mock want the same cores; fewer connections (-c 1) "
    "leave it one",
}  # by whether there is a mock of ours
_MOST_BEHIND: Final = 0.05  # of what was due: after that it matters who was too slow
_MOST_BUSY: Final = 0.9  # working or waiting for a core: answers lie about unread
_MOST_BEYOND: Final = 2.0  # times what it could send: then the target was never asked for it
_FEWEST_SENT: Final = 1000  # what fewer cost is mostly what an idle generator costs
_MOST_MOCK_CPU: Final = 0.9


def rig_verdict(
    figures: Sequence[RigFigures],
    *,
    latency_ms: Distribution | None,
    late_ms: Distribution | None,
    baseline_p99_ms: tuple[float, float] | None = None,
    mock_cpu_share: float | None = None,
) -> RigVerdict:
    """`baseline_p99_ms` is direct p99 in the first and the last third of a steady paired run."""
    shares = {one.process: _share(one.cpu_s, one) for one in figures}
    reasons = [
        *_lost(figures),
        *_busy(figures, shares),
        *_behind(figures, shares),
        *_mock(mock_cpu_share),
        *_lag(figures, latency_ms, has_mock=mock_cpu_share is not None),
        *_late(figures, latency_ms),
        *_drift(baseline_p99_ms),
    ]
    return RigVerdict(
        verdict="rig-bound" if reasons else "ok",
        reasons=tuple(reasons),
        processes=len(figures),
        lost=sum(bool(one.lost) for one in figures),
        cpu_share=rounded(max(shares.values(), default=0.0)),
        loop_lag_p50_ms=rounded(max((one.lag_p50_ms for one in figures), default=0.0)),
        loop_lag_p99_ms=rounded(max((one.lag_p99_ms for one in figures), default=0.0)),
        loop_lag_max_ms=rounded(max((one.lag_max_ms for one in figures), default=0.0)),
        late_ms=late_ms,
        unsent=sum(one.unsent for one in figures),
        reconnects=sum(one.reconnects for one in figures),
        waited_share=rounded(max((_share(one.waited_s, one) for one in figures), default=0.0)),
        mock_cpu_share=None if mock_cpu_share is None else rounded(mock_cpu_share),
    )


def _share(seconds: float, one: RigFigures) -> float:
    return seconds / one.wall_s if one.wall_s > 0 else 0.0


def _lost(figures: Sequence[RigFigures]) -> Iterator[str]:
    for one in figures:
        if one.lost:
            yield f"{one.lost}, and the run ended there: its last figures are missing"


def _busy(figures: Sequence[RigFigures], shares: dict[int, float]) -> Iterator[str]:
    long = [shares[one.process] for one in figures if one.wall_s >= _SHORTEST_S]
    busy = [share for share in long if share > _MOST_CPU]
    if busy:
        yield (
            f"{len(busy)} of {len(shares)} generator processes used up to "
            f"{format_share(max(busy))} of a core: more --processes, or less load"
        )


def _behind(figures: Sequence[RigFigures], shares: dict[int, float]) -> Iterator[str]:
    """Whose fault it was that arrivals waited: all slots are taken when the target is slow, but
    also when the generator doesn't come to read the answers."""
    due, sent = sum(one.due for one in figures), sum(one.sent for one in figures)
    if due - sent <= _MOST_BEHIND * due:
        return
    due_rate = sum(_share(one.due, one) for one in figures)
    sent_rate = sum(_share(one.sent, one) for one in figures)
    asked = f"{format_rate(sent_rate)}/s were sent of {format_rate(due_rate)}/s that were due"
    worst = max(figures, key=lambda one: _share(one.cpu_s + one.waited_s, one))
    ceiling = sum(one.sent / one.cpu_s for one in figures if one.cpu_s > 0)
    if _share(worst.cpu_s + worst.waited_s, worst) > _MOST_BUSY >= shares[worst.process]:
        yield (
            f"{asked}: the generator used {format_share(shares[worst.process])} of a core and "
            f"waited {format_share(_share(worst.waited_s, worst))} of the time for one; leave it a "
            "core of its own"
        )
    elif sent >= _FEWEST_SENT and due_rate > _MOST_BEYOND * ceiling:
        yield (
            f"{asked}, and the generator can't send more than {format_rate(ceiling)}/s: more "
            "--processes, or a lower rate"
        )


def _mock(cpu_share: float | None) -> Iterator[str]:
    if cpu_share is not None and cpu_share >= _MOST_MOCK_CPU:
        yield (
            f"the throw-away mock used {format_share(cpu_share)} of a core, of which it can use "
            "one: latency and rate are as much its own as the server's"
        )


def _lag(
    figures: Sequence[RigFigures], latency_ms: Distribution | None, *, has_mock: bool
) -> Iterator[str]:
    counted = [one for one in figures if one.lag_ticks >= _FEWEST_TICKS]
    if latency_ms is None or not counted:
        return
    median_ms = max(one.lag_p50_ms for one in counted)
    tail_ms = max(one.lag_p99_ms for one in counted)
    if median_ms > max(_NO_MATTER_MS, _MOST_OF_MEDIAN * latency_ms.p50):
        yield (
            f"the generator's event loop ran {format_ms(median_ms)} late (p50), beside a median "
            f"latency of {format_ms(latency_ms.p50)}: {_ADVICE[has_mock]}"
        )
    elif _is_tail(tail_ms, latency_ms):
        yield (
            f"the tail is the generator's: its event loop ran {format_ms(tail_ms)} late (p99), "
            f"beside a p99 latency of {format_ms(latency_ms.p99)}: {_ADVICE[has_mock]}"
        )


def _late(figures: Sequence[RigFigures], latency_ms: Distribution | None) -> Iterator[str]:
    """Only of arrivals that had a free slot: for the others the target is to blame."""
    late_ms = max((one.late_p99_ms for one in figures), default=0.0)
    if latency_ms is not None and _is_tail(late_ms, latency_ms):
        yield (
            f"requests were sent {format_ms(late_ms)} after they were due (p99), "
            f"beside a p99 latency of {format_ms(latency_ms.p99)}"
        )


def _is_tail(ms: float, latency_ms: Distribution) -> bool:
    return ms > max(_NO_MATTER_TAIL_MS, _MOST_OF_TAIL * latency_ms.p99)


def _drift(baseline_p99_ms: tuple[float, float] | None) -> Iterator[str]:
    if baseline_p99_ms is None or min(baseline_p99_ms) <= 0:
        return
    first, last = baseline_p99_ms
    if max(first, last) / min(first, last) > _MOST_DRIFT:
        yield (
            f"the baseline itself drifted: direct p99 was {format_ms(first)} in the first third "
            f"of the run and {format_ms(last)} in the last"
        )
