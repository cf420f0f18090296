"""The report of what a session measured, and the limits it is held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from llm_proxy.benchmark.comparison import compare, regressions
from llm_proxy.benchmark.frontier import limit_name
from llm_proxy.benchmark.goodput import GoodputLimit
from llm_proxy.benchmark.metric import RPS
from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.report import (
    Check,
    Environment,
    FindMax,
    FrontierPoint,
    LoadDescription,
    Report,
    Side,
    WorkloadDescription,
)
from llm_proxy.benchmark.session import Measured
from llm_proxy.benchmark.thresholds import RegressionLimit, Threshold, check_error_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Everything in a report that isn't measured by the run itself."""

    command: str
    seed: int
    started_at: str
    environment: Environment
    load: LoadDescription
    workload: WorkloadDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    slo: tuple[Threshold, ...]
    max_error_rate: float
    goodput: tuple[GoodputLimit, ...] = ()
    old: Report | None = None
    old_file: str = ""
    max_regression: tuple[RegressionLimit, ...] = ()


def compose(measured: Measured, circumstances: Circumstances) -> Report:
    results = measured.results
    side = {name: getattr(results.side, name) for name in Side.__struct_fields__}
    return Report(
        **side,
        command=circumstances.command,
        seed=circumstances.seed,
        started_at=circumstances.started_at,
        interrupted=measured.interrupted,
        environment=circumstances.environment,
        load=circumstances.load,
        workload=circumstances.workload,
        rig=results.rig,
        series=results.series,
        spread=measured.spread,
        direct=results.direct,
        added_latency_ms=results.added_latency_ms,
        added_ttft_ms=results.added_ttft_ms,
        added_inter_token_ms=results.added_inter_token_ms,
        fidelity=results.fidelity,
        process=measured.process,
        hang_ups=results.hang_ups,
        runs=measured.runs,
        find_max=measured.find_max,
        frontier=measured.frontier,
    )


def checked(report: Report, limits: Limits) -> Report:
    """With the verdicts on it, and the comparison that was asked for."""
    checks = [*_checks(report, limits)]
    comparison = None
    if limits.old is not None:
        comparison = compare(limits.old, report, file=limits.old_file)
        checks += regressions(limits.old, report, limits.max_regression)
    return msgspec.structs.replace(report, checks=tuple(checks), comparison=comparison)


def _checks(report: Report, limits: Limits) -> Iterator[Check]:
    if report.find_max is None and report.frontier is None:
        yield from (threshold.check(report) for threshold in limits.slo)
    else:
        yield from _checks_of_search(report, limits)
    yield check_error_rate(report, limits.max_error_rate)
    if report.rig.lost:
        yield Check(
            kind="rig",
            name="generators",
            passed=False,
            message=f"the run is incomplete: {report.rig.reasons[0]}",
        )


def _checks_of_search(report: Report, limits: Limits) -> Iterator[Check]:
    """Rates may be demanded of what was found; its windows met the other limits already."""
    demanded = [threshold for threshold in limits.slo if threshold.metric.is_of_search]
    if report.frontier is not None:
        rps = [threshold for threshold in demanded if threshold.metric == RPS]
        yield from (_check_point(point, rps) for point in report.frontier.points)
        demanded = [threshold for threshold in demanded if threshold not in rps]
    elif report.find_max is not None:
        yield _check_rate(report.find_max)
    yield from (threshold.check(report) for threshold in demanded)


def _check_rate(found: FindMax) -> Check:
    """Passed when any rate kept within the limits."""
    return Check(
        kind="slo",
        name=",".join(found.slo),
        passed=found.rate is not None,
        message=found.note,
    )


def _check_point(point: FrontierPoint, rps: Iterable[Threshold]) -> Check:
    """As of one rate; each point must have the rate that is demanded."""
    name, rate = limit_name(point.p99_limit_ms), point.requests_per_second
    missed = [limit for limit in rps if rate is not None and not limit.is_met(rate)]
    text = "".join(f" {format_rate(rate)}/s isn't {limit.name}." for limit in missed)
    return Check(
        kind="slo",
        name=f"frontier {name}",
        passed=rate is not None and not missed,
        message=f"{name}: {point.note}{text}",
    )
