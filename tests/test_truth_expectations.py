"""What the truth trials expect is worked out right, or a wrong report could pass them."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st


def _load() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "truth_expectations.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


truth = _load()
EXACT = {"p50": 50.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 100.0} | {
    "max": 100.0
}


def test_percentile_is_the_least_value_that_so_many_do_not_exceed() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [truth.percentile(values, share) for share in truth.SHARES.values()] == [*EXACT.values()]
    assert truth.percentile([7.0], 0.0) == 7.0


def test_report_of_the_log_itself_passes() -> None:
    log = [float(number) for number in range(1, 101)]
    findings = truth.match_log("x", log, EXACT, slack_ms=1.0)
    assert len(findings) == 7
    assert all(finding.passed for finding in findings)


@pytest.mark.parametrize(
    ("changed", "passes"),
    [(99.9, True), (99.0, True), (100.3, False), (98.6, False), (None, False)],
)
def test_percentile_off_the_log_is_a_miss(changed: float | None, passes: bool) -> None:
    log = [float(number) for number in range(1, 101)]
    found = {name: value for name, value in EXACT.items() if name != "p99"}
    if changed is not None:
        found["p99"] = changed
    findings = truth.match_log("x", log, found, slack_ms=1.0)
    assert [one.what for one in findings if not one.passed] == ([] if passes else ["x p99, ms"])


def test_report_without_percentiles_is_a_miss_in_each() -> None:
    assert not any(finding.passed for finding in truth.match_log("x", [1.0], None, slack_ms=9))


def test_gaps_may_be_shorter_when_that_is_allowed() -> None:
    log, shorter = [10.0] * 50, dict.fromkeys(truth.SHARES, 9.0)
    strict = truth.match_log("x", log, shorter, slack_ms=2.0)
    lenient = truth.match_log("x", log, shorter, slack_ms=2.0, less_ms=2.0)
    assert [any(one.passed for one in strict), all(one.passed for one in lenient)] == [False, True]


def test_quantiles_of_the_jitter() -> None:
    jitter = truth.Jitter(low_ms=40, high_ms=60, slow_share=0.02, slow_ms=150)
    at = [jitter.quantile(share) for share in (0.0, 0.49, 0.979999, 0.98, 1.0)]
    assert at == pytest.approx([40, 50, 60, 150, 150], abs=0.001)


@pytest.mark.parametrize("seed", range(20))
def test_honest_draws_are_found_in_every_percentile(seed: int) -> None:
    jitter, source = truth.Jitter(), random.Random(seed)
    draws = [jitter.draw(source) for _ in range(500)]
    found = {name: truth.percentile(draws, share) for name, share in truth.SHARES.items()}
    findings = truth.match_jitter("x", jitter, found, count=500, slack_ms=0.5)
    assert [finding for finding in findings if not finding.passed] == []


def test_draws_of_another_distribution_are_not() -> None:
    other = truth.Jitter(low_ms=44, high_ms=64)
    found = {name: other.quantile(share) for name, share in truth.SHARES.items()}
    findings = truth.match_jitter("x", truth.Jitter(), found, count=2000, slack_ms=0.5)
    assert not findings[0].passed


def test_more_draws_leave_narrower_bounds() -> None:
    few, many = truth.share_bounds(100, 0.9), truth.share_bounds(10_000, 0.9)
    assert few[0] < many[0] < 0.9 < many[1] < few[1] <= 1.0
    assert truth.share_bounds(10, 1.0)[1] == 1.0


def test_binomial_bounds_of_known_cases() -> None:
    # 60 trials with a chance of 5 %: P(X >= 10) = 0.0007, P(X >= 11) = 0.0002, P(X = 0) = 0.046.
    assert truth.binomial_bounds(60, 0.05) == (0, 10)
    assert truth.binomial_bounds(10, 0.5, risk=0.0025) == (1, 9)
    assert truth.binomial_bounds(5, 0.0) == (0, 0)
    assert truth.binomial_bounds(5, 1.0) == (5, 5)


@given(st.integers(1, 200), st.floats(0.001, 0.999))
def test_binomial_bounds_are_symmetric_and_hold_the_mean(trials: int, share: float) -> None:
    low, high = truth.binomial_bounds(trials, share)
    assert 0 <= low <= share * trials + 1 and share * trials - 1 <= high <= trials
    mirrored = truth.binomial_bounds(trials, 1 - share)
    assert abs(trials - high - mirrored[0]) <= 1 and abs(trials - low - mirrored[1]) <= 1


def test_count_outside_its_bounds_is_a_miss() -> None:
    found = [truth.count_within("found", 60, 0.05, count).passed for count in (0, 3, 10, 11)]
    assert found == [True, True, True, False]


@pytest.mark.parametrize(
    ("share", "expected"), [(1.0, 1000), (0.99, 900), (0.95, 500), (0.9, 0), (0.5, 0)]
)
def test_percentiles_of_a_freeze_in_an_open_load(share: float, expected: float) -> None:
    """As a simulation of even arrivals has it, too."""
    found = truth.frozen_percentile(share, freeze_ms=1000, duration_ms=10_000)
    assert found == pytest.approx(expected)
    waits = [max(5000 + 1000 - at, 0) if at >= 5000 else 0 for at in range(0, 10_000, 5)]
    assert truth.percentile([float(wait) for wait in waits], share) == pytest.approx(found, abs=5)


@pytest.mark.parametrize("bound", [0, 200, 500, 999, 2000])
def test_arrivals_held_by_a_freeze(bound: float) -> None:
    waits = [1000.0 - at for at in range(0, 1000, 5)]
    about = truth.frozen_count(200, freeze_ms=1000, at_least_ms=bound)
    assert truth.count_at_least(waits, bound) == pytest.approx(about, abs=1)


def test_finding_says_what_was_expected_and_found() -> None:
    assert truth.equal("cut", 3, 2) == truth.Finding(
        what="cut", expected="3", found="2", passed=False
    )
    nothing = truth.within("p50", 1, 2, None)
    assert (nothing.expected, nothing.found, nothing.passed) == ("1.000 to 2.000", "nothing", False)


def test_no_more_trials_than_chance_allows() -> None:
    passed = [truth.count_at_most("found", 60, 0.05, count).passed for count in (0, 3, 10, 11)]
    assert passed == [True, True, True, False]
