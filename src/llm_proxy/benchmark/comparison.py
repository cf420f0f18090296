"""A report beside an earlier one, and whether it got worse by more than it may."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from llm_proxy.benchmark.metric import Metric, frontier_metric, parse_metric
from llm_proxy.benchmark.precision import format_change
from llm_proxy.benchmark.report import (
    SCHEMA_VERSION,
    Change,
    Check,
    Comparison,
    Report,
    decode_report,
)
from llm_proxy.benchmark.thresholds import RegressionLimit
from llm_proxy.errors import ConfigError

COMPARED: Final = tuple(
    map(
        parse_metric,
        (
            *("rps", "errors", "goodput", "mean", "p50", "p75", "p90", "p95", "p99", "p99.9"),
            *("ttft.p50", "ttft.p99", "inter_token.p50", "inter_token.p99"),
            *("added.typical", "added_ttft.typical", "added_inter_token.typical"),
        ),
    )
)
_LARGEST: Final = 64 * 2**20  # a report is some tens of kilobytes
_GREATEST: Final = 1e12  # of any figure; a calculation with greater ones may not end in a number
_ROUNDING: Final = 1e-9  # 10 % more than 100 is 110.00000000000001


class _Version(msgspec.Struct):
    schema_version: int


def read_report(path: Path) -> Report:
    """Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST)
    except OSError as exc:
        raise ConfigError(f"{path} can't be read ({exc.strerror}); name a report") from exc
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version <= SCHEMA_VERSION:
            return _plausible(decode_report(data), path)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"{path} isn't a report of `llm-proxy benchmark --json` ({exc}); write one with "
            "`llm-proxy benchmark --json >FILE`"
        ) from exc
    raise ConfigError(
        f"{path} has schema version {version}, this llm-proxy knows {SCHEMA_VERSION}; compare with "
        "the llm-proxy that wrote it, or a newer one"
    )


def _plausible(report: Report, path: Path) -> Report:
    for metric in (*COMPARED, *_of_frontier(report)):
        value = metric.value(report)
        if value is not None and not abs(value) < _GREATEST:
            raise ConfigError(f"{path}: {metric.name} is {value:g}, which no run measures")
    return report


def compare(old: Report, new: Report, *, file: str) -> Comparison:
    """What both have measured."""
    return Comparison(
        file=file,
        started_at=old.started_at,
        changes=tuple(_changes(old, new)),
        warnings=tuple(_warnings(old, new)),
    )


def regressions(old: Report, new: Report, limits: Iterable[RegressionLimit]) -> tuple[Check, ...]:
    return tuple(_check(old, new, limit) for limit in limits)


def _changes(old: Report, new: Report) -> Iterable[Change]:
    for metric in (*COMPARED, *_of_frontier(old)):
        before, after = metric.value(old), metric.value(new)
        if before is not None and after is not None:
            change = _relative(before, after)
            yield Change(metric=metric.name, old=before, new=after, change=change)


def _of_frontier(report: Report) -> tuple[Metric, ...]:
    points = () if report.frontier is None else report.frontier.points
    return tuple(frontier_metric(point.p99_limit_ms) for point in points)


def _relative(before: float, after: float) -> float | None:
    if before == after:
        return 0.0
    return float(f"{(after - before) / abs(before):.4g}") if before else None


def _check(old: Report, new: Report, limit: RegressionLimit) -> Check:
    metric = limit.metric
    before, after = metric.value(old), metric.value(new)
    allowed = f"{limit.share * 100:g} {'points' if metric.unit == 'share' else '%'}"
    if before is None or after is None:
        which = "the report compared with" if before is None else "this run"
        passed, message = False, f"{metric.name} isn't in {which}: {metric.absence}"
    else:
        passed = not _exceeds(limit, before, after)
        message = _sentence(metric, before, after) + f"; {allowed} are allowed"
    return Check(
        kind="regression",
        name=f"{metric.name} {'-' if metric.more_is_better else '+'}{allowed}",
        passed=passed,
        message=message,
    )


def _exceeds(limit: RegressionLimit, before: float, after: float) -> bool:
    worse = before - after if limit.metric.more_is_better else after - before
    # An error rate is often 0: its limit is in points, not a share of the old one.
    allowed = limit.share * (1.0 if limit.metric.unit == "share" else abs(before))
    return worse > allowed + _ROUNDING * max(abs(before), abs(after))


def _sentence(metric: Metric, before: float, after: float) -> str:
    text = f"{metric.subject} was {metric.show(before)} and is {metric.show(after)}"
    change = _relative(before, after)
    return text if change is None else f"{text} ({format_change(change)})"


def _warnings(old: Report, new: Report) -> Iterable[str]:
    for what, before, after in _conditions(old, new):
        if before != after:
            yield f"The {what} differs: {_shown(before)} then, {_shown(after)} now."
    for name, report in (("The report compared with", old), ("This run", new)):
        if report.rig.verdict == "rig-bound":
            yield f"{name} was bound by its load generator: its figures aren't the target's."
        if report.interrupted:
            yield f"{name} was interrupted."


def _conditions(old: Report, new: Report) -> Iterable[tuple[str, object, object]]:
    for what, name in (("endpoint", "endpoint"), ("preset", "preset"), ("streaming", "stream")):
        yield what, getattr(old.workload, name), getattr(new.workload, name)
    yield "throw-away server", old.workload.is_throwaway, new.workload.is_throwaway
    yield "goodput demanded", _goodput_limits(old), _goodput_limits(new)
    yield "load", old.load.description, new.load.description
    yield "number of generator processes", old.load.processes, new.load.processes
    for what, name in (("CPU", "cpu"), ("number of CPUs", "cpus"), ("Python", "python")):
        yield what, getattr(old.environment, name), getattr(new.environment, name)


def _goodput_limits(report: Report) -> str | None:
    return None if report.goodput is None else ", ".join(report.goodput.limits)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
