from __future__ import annotations

import pytest

from llm_proxy.benchmark.report import RigVerdict
from llm_proxy.benchmark.rig_verdict import rig_verdict
from tests.benchmark.framing import figures_of


def verdict_of(
    *,
    median_ms: float | None = 10.0,
    baseline_p99_ms: tuple[float, float] | None = None,
    **changes: float,
) -> RigVerdict:
    return rig_verdict(
        [figures_of(), figures_of(process=1, **changes)],
        median_ms=median_ms,
        late_ms=None,
        baseline_p99_ms=baseline_p99_ms,
    )


def test_an_idle_rig_is_ok() -> None:
    found = verdict_of(cpu_s=2.0, lag_p99_ms=0.9, lag_max_ms=7.0, reconnects=3)
    assert (found.verdict, found.reasons) == ("ok", ())
    assert (found.processes, found.cpu_share, found.reconnects) == (2, 0.2, 3)
    assert (found.loop_lag_p99_ms, found.loop_lag_max_ms) == (0.9, 7.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cpu_s": 8.6}, ("1 of 2", "86.0 %", "--processes")),
        ({"lag_p99_ms": 1.5}, ("event loop", "1.50 ms", "15.0 % of the median")),
        ({"lag_p99_ms": 40.0}, ("event loop", "4.00 times the median")),
        ({"late_p99_ms": 2.5}, ("after they were due", "2.50 ms", "25.0 %")),
        ({"unsent": 1200}, ("1,200 arrivals", "never sent")),
        ({"baseline_p99_ms": (2.0, 5.0)}, ("baseline itself drifted", "2.00 ms", "5.00 ms")),
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
        {"lag_p99_ms": 0.9, "median_ms": 0.1},
        {"lag_p99_ms": 9.0, "median_ms": 100.0},
        {"late_p99_ms": 0.9, "median_ms": 0.5},
        {"blocked": 500, "late_p99_ms": 0.2},
        {"lag_p99_ms": 50.0, "median_ms": None},
        {"baseline_p99_ms": (2.0, 3.9)},
        {"baseline_p99_ms": (0.0, 3.9)},
        {"wall_s": 0.0},
    ],
)
def test_what_does_not_matter_is_no_reason(changes: dict[str, float]) -> None:
    assert verdict_of(**changes).verdict == "ok"  # type: ignore[arg-type]


def test_without_figures_there_is_nothing_to_say() -> None:
    found = rig_verdict([], median_ms=None, late_ms=None)
    assert (found.verdict, found.processes, found.cpu_share) == ("ok", 0, 0.0)


def test_several_reasons_are_all_told() -> None:
    assert len(verdict_of(cpu_s=9.9, lag_p99_ms=30.0, late_p99_ms=30.0).reasons) == 3
