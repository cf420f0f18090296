from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_proxy.benchmark.composition import Circumstances, Limits, checked, compose
from llm_proxy.benchmark.report import Report, Side
from llm_proxy.benchmark.results import Results
from llm_proxy.benchmark.session import Measured
from llm_proxy.benchmark.thresholds import parse_max_regression, parse_slo
from tests.benchmark.reports import (
    make_environment,
    make_find_max,
    make_frontier,
    make_load,
    make_report,
    make_rig,
    make_runs,
    make_side,
    make_workload,
)


def results_of(report: Report) -> Results:
    side = Side(**{name: getattr(report, name) for name in Side.__struct_fields__})
    names = set(Results.__struct_fields__) - {"side", "histograms"}
    return Results(side=side, histograms={}, **{name: getattr(report, name) for name in names})


def limits(**options: Any) -> Limits:
    return Limits(**{"slo": (), "max_error_rate": 0.01, **options})


def test_report_holds_what_was_measured_and_under_what_circumstances() -> None:
    wanted = make_report(runs=make_runs(3), find_max=make_find_max(), checks=())
    measured = Measured(
        results=results_of(wanted),
        last=results_of(wanted),
        process=wanted.process,
        spread=wanted.spread,
        runs=wanted.runs,
        find_max=wanted.find_max,
    )
    circumstances = Circumstances(
        command=wanted.command,
        seed=wanted.seed,
        started_at=wanted.started_at,
        environment=make_environment(),
        load=make_load(),
        workload=make_workload(),
    )
    assert compose(measured, circumstances) == wanted


def test_error_rate_is_always_checked() -> None:
    assert checked(make_report(), limits()).passed
    failed = checked(make_report(error_rate=0.02), limits())
    assert [check.kind for check in failed.checks] == ["error-rate"]
    assert not failed.passed


def test_service_level_is_checked_figure_by_figure() -> None:
    report = checked(make_report(), limits(slo=parse_slo("p99=1us,added.typical=1s")))
    assert [(check.name, check.passed) for check in report.checks[:2]] == [
        ("p99<=0.001ms", False),
        ("added.typical<=1,000ms".replace(",", ""), True),
    ]


@pytest.mark.parametrize(("rate", "passed"), [(1500.0, True), (None, False)])
def test_search_passes_when_it_found_a_rate(rate: float | None, passed: bool) -> None:
    """The figures of the best rate may lie just within the limits: they aren't checked again."""
    found = make_find_max(rate=rate)
    report = checked(make_report(find_max=found), limits(slo=parse_slo("p99=1us,rps=5")))
    assert [(check.name, check.passed) for check in report.checks] == [
        ("p99<=50ms", passed),
        ("rps>=5/s", True),
        ("errors<=1%", True),
    ]
    assert report.checks[0].message == found.note


def test_every_limit_of_a_frontier_is_a_check() -> None:
    report = make_report(frontier=make_frontier())
    slo = parse_slo("p99=1us,frontier.10ms=1500,frontier.100ms=2500,frontier.1ms=1")
    checks = checked(report, limits(slo=slo)).checks
    assert [(check.name, check.passed) for check in checks] == [
        ("frontier p99<=1ms", False),
        ("frontier p99<=5ms", True),
        ("frontier p99<=10ms", True),
        ("frontier p99<=100ms", True),
        ("frontier.10ms>=1500/s", True),
        ("frontier.100ms>=2500/s", False),
        ("frontier.1ms>=1/s", False),
        ("errors<=1%", True),
    ]
    assert checks[0].message == "p99<=1ms: Noise: higher kept it (9/s)."
    assert "no rate was found for it" in checks[6].message


def test_every_point_of_a_frontier_must_have_the_rate_that_is_demanded() -> None:
    report = make_report(frontier=make_frontier())
    checks = checked(report, limits(slo=parse_slo("rps=1500"))).checks
    passed = {check.name: check.passed for check in checks}
    assert passed == {
        "frontier p99<=1ms": False,
        "frontier p99<=5ms": False,
        "frontier p99<=10ms": True,
        "frontier p99<=100ms": True,
        "errors<=1%": True,
    }
    assert checks[1].message.endswith("1,000/s isn't rps>=1500/s.")


def test_earlier_report_is_compared_with() -> None:
    old = make_report()
    side = make_side(median_ms=2)
    new = msgspec.structs.replace(old, latency_ms=side.latency_ms)
    options = {"old": old, "old_file": "old.json"}
    assert checked(new, limits(**options)).passed
    report = checked(new, limits(**options, max_regression=parse_max_regression("p99=10%,rps=5%")))
    assert report.comparison is not None
    assert report.comparison.file == "old.json"
    regressions = [check.passed for check in report.checks if check.kind == "regression"]
    assert regressions == [False, True]


def test_a_run_that_lost_a_generator_has_failed() -> None:
    lost = "a generator process ended by itself (exit code -9), and the run ended there"
    rig = make_rig(verdict="rig-bound", reasons=(lost,), lost=1)
    (*_, check) = checked(make_report(rig=rig), limits()).checks
    assert (check.kind, check.passed) == ("rig", False)
    assert lost in check.message
