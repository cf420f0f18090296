from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_proxy.benchmark.comparison import compare, read_report, regressions
from llm_proxy.benchmark.report import SCHEMA_VERSION, encode_report
from llm_proxy.benchmark.thresholds import parse_max_regression
from llm_proxy.errors import ConfigError
from tests.benchmark.reports import (
    make_added,
    make_distribution,
    make_environment,
    make_frontier,
    make_goodput,
    make_load,
    make_point,
    make_report,
    make_rig,
    make_stream_report,
    make_workload,
)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(encode_report(make_stream_report()))
    assert read_report(path) == make_stream_report()


def test_points_of_a_frontier_are_compared_by_limit() -> None:
    old = make_report(frontier=make_frontier())
    points = (make_point(1.0, 90.0), make_point(5.0, 800.0), make_point(20.0, 900.0))
    new = make_report(frontier=make_frontier(points=points))
    changes = {change.metric: change for change in compare(old, new, file="old.json").changes}
    assert [name for name in changes if "frontier" in name] == ["frontier.5ms"]
    assert (changes["frontier.5ms"].old, changes["frontier.5ms"].new) == (1000, 800)
    limits = parse_max_regression("frontier.5ms=10%,frontier.20ms=10%")
    worse, unknown = regressions(old, new, limits)
    assert "the rate within a p99 of 5ms was 1,000 requests/s and is 800" in worse.message
    assert "frontier.20ms isn't in the report compared with" in unknown.message
    assert not worse.passed and not unknown.passed


def test_fields_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(json.loads(encode_report(make_report())) | {"later": 1}))
    assert read_report(path) == make_report()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "no JSON", '{"schema_version": 1}', "\ufffd"])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"old\.json isn't a report of `llm-proxy benchmark --js"):
        read_report(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(b'{"schema_version": 1, "command": "\xff"}')
    with pytest.raises(ConfigError, match="isn't a report"):
        read_report(path)


def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(ConfigError, match="schema version 2, this llm-proxy knows 1; compare with"):
        read_report(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read_report(tmp_path / "none.json")


def test_changes_are_relative_to_the_old_report() -> None:
    old, new = make_report(requests_per_second=200.0), make_report(requests_per_second=150.0)
    comparison = compare(old, new, file="old.json")
    changes = {change.metric: change for change in comparison.changes}
    assert (changes["rps"].old, changes["rps"].new, changes["rps"].change) == (200.0, 150.0, -0.25)
    assert changes["p99"].change == 0.0
    assert comparison.started_at == old.started_at
    assert comparison.warnings == ()


def test_only_what_both_have_measured_is_compared() -> None:
    plain, streams = make_report(added_latency_ms=None), make_stream_report()
    names = {change.metric for change in compare(plain, streams, file="old.json").changes}
    assert "p99.9" in names
    assert not names & {"ttft.p50", "added.typical"}
    names = {change.metric for change in compare(streams, streams, file="old.json").changes}
    assert {"ttft.p50", "ttft.p99", "added.typical", "added_ttft.typical"} <= names


def test_a_change_from_nothing_has_no_share() -> None:
    old, new = make_report(error_rate=0.0), make_report(error_rate=0.01)
    changes = {it.metric: it.change for it in compare(old, new, file="old.json").changes}
    assert changes["errors"] is None
    assert encode_report(make_report(comparison=compare(old, new, file="old.json")))


@pytest.mark.parametrize(
    ("metric", "old", "new", "passes"),
    [
        ("p99=10%", {"latency_ms": 100.0}, {"latency_ms": 109.0}, True),
        ("p99=10%", {"latency_ms": 100.0}, {"latency_ms": 112.0}, False),
        ("p99=10%", {"latency_ms": 100.0}, {"latency_ms": 10.0}, True),
        ("rps=5%", {"requests_per_second": 100.0}, {"requests_per_second": 95.0}, True),
        ("rps=5%", {"requests_per_second": 100.0}, {"requests_per_second": 94.9}, False),
        ("rps=10%", {"requests_per_second": 0.0}, {"requests_per_second": 5.0}, True),
        ("errors=1%", {"error_rate": 0.0}, {"error_rate": 0.01}, True),
        ("errors=1%", {"error_rate": 0.0}, {"error_rate": 0.011}, False),
        ("added.typical=50%", {"added_latency_ms": 0.1}, {"added_latency_ms": 0.15}, True),
        ("added.typical=50%", {"added_latency_ms": 0.1}, {"added_latency_ms": 0.16}, False),
        ("added.typical=50%", {"added_latency_ms": 0.0}, {"added_latency_ms": 0.1}, False),
        ("added.typical=50%", {"added_latency_ms": -0.1}, {"added_latency_ms": 0.0}, False),
    ],
)
def test_only_more_than_the_limit_is_a_regression(
    metric: str, old: dict[str, float], new: dict[str, float], passes: bool
) -> None:
    make: dict[str, Callable[[float], object]] = {
        "latency_ms": make_distribution,
        "added_latency_ms": make_added,
    }
    before, after = (
        make_report(**{name: make.get(name, float)(value) for name, value in side.items()})
        for side in (old, new)
    )
    (check,) = regressions(before, after, parse_max_regression(metric))
    assert check.passed == passes
    assert check.kind == "regression"


def test_exactly_the_limit_is_none_whatever_the_rounding() -> None:
    old, new = make_report(requests_per_second=0.1), make_report(requests_per_second=0.09)
    assert old.requests_per_second - new.requests_per_second > 0.1 * old.requests_per_second
    assert regressions(old, new, parse_max_regression("rps=10%"))[0].passed


def test_a_regression_says_what_was_and_what_is() -> None:
    old, new = make_report(requests_per_second=200.0), make_report(requests_per_second=150.0)
    (check,) = regressions(old, new, parse_max_regression("rps=5%"))
    assert check.name == "rps -5 %"
    assert (
        check.message
        == "the rate was 200 requests/s and is 150 requests/s (-25 %); 5 % are allowed"
    )


def test_a_figure_that_is_missing_on_either_side_fails() -> None:
    with_it, without = make_stream_report(), make_report()
    limits = parse_max_regression("ttft.p50=10%")
    (check,) = regressions(without, with_it, limits)
    assert not check.passed
    assert check.message.startswith("ttft.p50 isn't in the report compared with: no stream")
    (check,) = regressions(with_it, without, limits)
    assert not check.passed
    assert check.message.startswith("ttft.p50 isn't in this run")


def test_goodput_is_compared_and_its_regression_is_in_points() -> None:
    old = make_report(goodput=make_goodput(share=0.99))
    new = make_report(goodput=make_goodput(share=0.97, limits=("latency<=20ms",)))
    comparison = compare(old, new, file="old.json")
    assert "goodput" in {change.metric for change in comparison.changes}
    (warning,) = comparison.warnings
    assert "The goodput demanded differs: latency<=50ms, ttft<=200ms then" in warning
    (check,) = regressions(old, new, parse_max_regression("goodput=1%"))
    assert not check.passed
    assert "goodput was 99 % and is 97 %" in check.message
    (check,) = regressions(old, new, parse_max_regression("goodput=2%"))
    assert check.passed


def test_conditions_that_differ_are_warned_of() -> None:
    old = make_report()
    new = make_report(
        environment=make_environment(cpu="Other CPU", python="CPython 3.12.1"),
        load=make_load(description="500/s for 10 s", processes=2),
        workload=make_workload(endpoint="/v1/embeddings", preset=None, is_throwaway=False),
    )
    assert compare(old, new, file="old.json").warnings == (
        "The endpoint differs: /v1/chat/completions then, /v1/embeddings now.",
        "The preset differs: chat then, none now.",
        "The throw-away server differs: yes then, no now.",
        "The load differs: closed, 10 connections, 10 s then, 500/s for 10 s now.",
        "The number of generator processes differs: 1 then, 2 now.",
        "The CPU differs: Example CPU 3000 then, Other CPU now.",
        "The Python differs: CPython 3.11.9 then, CPython 3.12.1 now.",
    )


def test_a_rig_bound_side_and_an_interrupted_one_are_warned_of() -> None:
    bound = make_report(rig=make_rig(verdict="rig-bound", reasons=("It was.",)))
    (warning,) = compare(bound, make_report(), file="old.json").warnings
    assert warning.startswith("The report compared with was bound by its load generator")
    (warning,) = compare(make_report(), make_report(interrupted=True), file="o").warnings
    assert warning == "This run was interrupted."


@pytest.mark.parametrize("figure", [1e308, -1e13])
def test_a_figure_that_no_run_measures_is_refused_before_one(tmp_path: Path, figure: float) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(encode_report(make_report(requests_per_second=figure)))
    with pytest.raises(ConfigError, match="rps is .*, which no run measures"):
        read_report(path)
