from __future__ import annotations

import msgspec
import pytest

from llm_proxy.benchmark.report import Distribution, RigVerdict
from llm_proxy.benchmark.rig_verdict import rig_verdict
from llm_proxy.benchmark.samples import lost_process
from tests.benchmark.framing import figures_of
from tests.benchmark.reports import make_distribution


def latencies(median_ms: float, p99_ms: float) -> Distribution:
    return msgspec.structs.replace(make_distribution(median_ms), p50=median_ms, p99=p99_ms)


def verdict_of(
    *,
    latency_ms: tuple[float, float] | None = (10.0, 20.0),
    baseline_p99_ms: tuple[float, float] | None = None,
    mock_cpu_share: float | None = None,
    **changes: float,
) -> RigVerdict:
    return rig_verdict(
        [figures_of(), figures_of(process=1, **changes)],
        latency_ms=None if latency_ms is None else latencies(*latency_ms),
        late_ms=None,
        baseline_p99_ms=baseline_p99_ms,
        mock_cpu_share=mock_cpu_share,
    )


def test_an_idle_rig_is_ok() -> None:
    found = verdict_of(cpu_s=2.0, lag_p99_ms=0.9, lag_max_ms=7.0, reconnects=3)
    assert (found.verdict, found.reasons) == ("ok", ())
    assert (found.processes, found.cpu_share, found.reconnects) == (2, 0.2, 3)
    assert (found.loop_lag_p99_ms, found.loop_lag_max_ms) == (0.9, 7.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cpu_s": 8.6}, ("1 of 2", "86 %", "--processes")),
        ({"lag_p50_ms": 1.5}, ("event loop", "1.50 ms late (p50)", "median latency of 10.0 ms")),
        ({"lag_p50_ms": 1.5}, ("leave it a core of its own, or use another machine",)),
        ({"lag_p50_ms": 1.5, "mock_cpu_share": 0.5}, ("its mock", "fewer connections (-c 1)")),
        ({"lag_p99_ms": 11.0}, ("the tail", "11.0 ms late (p99)", "p99 latency of 20.0 ms")),
        ({"late_p99_ms": 12.5}, ("after they were due", "12.5 ms", "p99 latency of 20.0 ms")),
        ({"baseline_p99_ms": (2.0, 5.0)}, ("baseline itself drifted", "2.00 ms", "5.00 ms")),
        (
            {"cpu_s": 5.0, "waited_s": 4.2, "due": 200_000, "sent": 60_000, "blocked": 140_000},
            ("6,000/s were sent of 20,000/s that were due", "50 %", "waited 42 %"),
        ),
        (
            {"cpu_s": 5.0, "due": 10_000_000, "sent": 100_000, "blocked": 90_000},
            ("10,000/s were sent of 1,000,000/s", "can't send more than 20,000/s", "--processes"),
        ),
        ({"mock_cpu_share": 0.93}, ("throw-away mock used 93 % of a core", "its own")),
        ({"baseline_p99_ms": (5.0, 2.0)}, ("baseline itself drifted",)),
    ],
)
def test_a_bound_rig_says_why(changes: dict[str, float], words: tuple[str, ...]) -> None:
    found = verdict_of(**changes)  # type: ignore[arg-type]
    assert found.verdict == "rig-bound"
    (reason,) = found.reasons
    assert all(word in reason for word in words), reason


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu_s": 8.4},
        {"lag_p50_ms": 0.2, "lag_p99_ms": 0.9, "latency_ms": (0.1, 0.2)},
        {"lag_p50_ms": 9.0, "lag_p99_ms": 90.0, "latency_ms": (100.0, 200.0)},
        {"lag_p50_ms": 9.0, "lag_p99_ms": 90.0, "lag_ticks": 49},
        {"late_p99_ms": 0.9, "latency_ms": (0.1, 0.5)},
        {"blocked": 500, "late_p99_ms": 0.2},
        {"unsent": 1200},
        {"cpu_s": 5.0, "waited_s": 3.9, "due": 200_000, "sent": 60_000, "blocked": 140_000},
        {"cpu_s": 5.0, "waited_s": 4.9, "due": 200_000, "sent": 191_000},
        {"cpu_s": 0.5, "due": 60_000, "sent": 999},
        {"mock_cpu_share": 0.89},
        {"lag_p50_ms": 50.0, "lag_p99_ms": 50.0, "late_p99_ms": 50.0, "latency_ms": None},
        {"baseline_p99_ms": (2.0, 3.9)},
        {"baseline_p99_ms": (0.0, 3.9)},
        {"wall_s": 0.0},
        {"wall_s": 0.09, "cpu_s": 0.09},
    ],
)
def test_what_does_not_matter_is_no_reason(changes: dict[str, float]) -> None:
    assert verdict_of(**changes).verdict == "ok"  # type: ignore[arg-type]


def test_without_figures_there_is_nothing_to_say() -> None:
    found = rig_verdict([], latency_ms=None, late_ms=None)
    assert (found.verdict, found.processes, found.cpu_share) == ("ok", 0, 0.0)


def test_several_reasons_are_all_told() -> None:
    assert len(verdict_of(cpu_s=9.9, lag_p99_ms=30.0, late_p99_ms=30.0).reasons) == 3


def test_a_saturated_process_tells_no_second_reason_for_what_it_could_not_send() -> None:
    found = verdict_of(cpu_s=9.5, waited_s=0.4, due=400_000, sent=200_000)
    (reason,) = found.reasons
    assert "95 % of a core" in reason


def test_what_was_waited_for_and_the_mock_are_in_the_verdict() -> None:
    found = verdict_of(waited_s=1.25, mock_cpu_share=0.41234)
    assert (found.verdict, found.waited_share, found.mock_cpu_share) == ("ok", 0.125, 0.4123)


def test_a_lost_process_is_told() -> None:
    found = rig_verdict(
        [figures_of(), lost_process(1, "it was killed")], latency_ms=None, late_ms=None
    )
    assert (found.verdict, found.lost) == ("rig-bound", 1)
    assert "it was killed" in found.reasons[0]
