"""Limits that are asked for: `--slo p99=50ms,errors=1%`, `--max-regression p99=10%`, errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from llm_proxy.benchmark.metric import ERRORS, Metric, parse_metric
from llm_proxy.benchmark.report import Check, Side
from llm_proxy.benchmark.results import Results
from llm_proxy.errors import WrongUsage
from llm_proxy.quantities import parse_duration

_MICROSECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)(?:us|µs|μs)", re.ASCII)  # both micro signs
_SHARE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)(?:/s)?", re.ASCII)


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    metric: Metric
    limit: float  # in the unit of the report: ms, requests a second, a share of 1

    @property
    def name(self) -> str:
        """`p99<=50ms`."""
        sign = ">=" if self.metric.more_is_better else "<="
        return f"{self.metric.name}{sign}{_compact(self.metric, self.limit)}"

    def check(self, measured: Side | Results) -> Check:
        """A limit on what is added wants a report or results: a side alone fails it."""
        value = self.metric.value(measured)
        return Check(
            kind="slo",
            name=self.name,
            passed=value is not None and self.is_met(value),
            message=_verdict(self, value),
        )

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.metric.more_is_better else value <= self.limit


class RegressionLimit(msgspec.Struct, frozen=True, kw_only=True):
    """How much worse a figure may be than in the report compared with."""

    metric: Metric
    share: float  # of the old value; of the error rate: points


def parse_slo(text: str) -> tuple[Threshold, ...]:
    """`p99=50ms,rps=500,errors=1%`. Raises WrongUsage."""
    return tuple(
        Threshold(metric=metric, limit=limit)
        for metric, limit in _parse("--slo", text, _parse_limit)
    )


def parse_max_regression(text: str) -> tuple[RegressionLimit, ...]:
    """`p99=10%,rps=5%`. Raises WrongUsage."""
    return tuple(
        RegressionLimit(metric=metric, share=share)
        for metric, share in _parse(
            "--max-regression", text, lambda _metric, value: parse_share(value)
        )
    )


def parse_share(text: str) -> float:
    """`10%` is 0.1. Raises ValueError."""
    match = _SHARE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} isn't a percentage; write it like 1% or 2.5%")
    return float(match[1]) / 100


def parse_ms(text: str) -> float:
    """`50ms`, `250us` or `1.5s`, in milliseconds. Raises ValueError."""
    match = _MICROSECONDS.fullmatch(text.strip())
    return float(match[1]) / 1000 if match else parse_duration(text) * 1000


def check_error_rate(side: Side, limit: float) -> Check:
    """`limit` is a share: 0.01 is 1 %."""
    threshold = Threshold(metric=ERRORS, limit=limit)
    return msgspec.structs.replace(threshold.check(side), kind="error-rate")


def _parse(
    option: str, text: str, parse_value: Callable[[Metric, str], float]
) -> list[tuple[Metric, float]]:
    limits: dict[Metric, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            if not equals:
                raise ValueError("a limit is written FIGURE=LIMIT, like p99=50ms or rps=5%")
            metric = parse_metric(name)
            if metric in limits:
                raise ValueError(f"{metric.name} has a limit already")
            limits[metric] = parse_value(metric, value)
        except ValueError as exc:
            raise WrongUsage(f"{option}: {part.strip()[:60]!r}: {exc}") from exc
    return list(limits.items())


def _parse_limit(metric: Metric, text: str) -> float:
    if metric.unit == "share":
        share = parse_share(text)
        if share > 1:
            raise ValueError(f"a share is at most 100%, not {text.strip()[:40]!r}")
        return share
    if metric.unit == "rps":
        match = _RATE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text[:40]!r} isn't a rate; write it like 500 or 500/s")
        return float(match[1])
    return parse_ms(text)


def _verdict(threshold: Threshold, value: float | None) -> str:
    metric, limit = threshold.metric, threshold.metric.show(threshold.limit)
    if value is None:
        return f"{metric.name} wasn't measured: {metric.absence}"
    if threshold.is_met(value):
        words = "at least" if metric.more_is_better else "within"
    else:
        words = "below" if metric.more_is_better else "over"
    return f"{metric.subject} is {metric.show(value)}, {words} {limit}"


def _compact(metric: Metric, value: float) -> str:
    return metric.show(value).replace(" requests/s", "/s").replace(" ", "").replace(",", "")
