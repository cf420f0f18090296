"""The report of what a session measured, and the limits it is held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from llm_proxy.benchmark.comparison import compare, regressions
from llm_proxy.benchmark.report import (
    Check,
    Environment,
    FindMax,
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
        runs=measured.runs,
        find_max=measured.find_max,
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
    if report.find_max is None:
        yield from (threshold.check(report) for threshold in limits.slo)
    else:
        yield _check_search(report.find_max, limits.slo)
    yield check_error_rate(report, limits.max_error_rate)
    if report.rig.lost:
        yield Check(
            kind="rig",
            name="generators",
            passed=False,
            message=f"the run is incomplete: {report.rig.reasons[0]}",
        )


def _check_search(found: FindMax, slo: Iterable[Threshold]) -> Check:
    """Passed when any rate kept within the limits: which one is for `--slo rps=…` to demand."""
    return Check(
        kind="slo",
        name=",".join(threshold.name for threshold in slo),
        passed=found.rate is not None,
        message=found.note,
    )
