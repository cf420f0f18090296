"""What `llm-proxy benchmark` holds its figures against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import WrongUsage

if TYPE_CHECKING:
    from llm_proxy.benchmark.composition import Limits
    from llm_proxy.benchmark.goodput import GoodputLimit
    from llm_proxy.benchmark.metric import Metric
    from llm_proxy.benchmark.thresholds import RegressionLimit, Threshold


def choose_limits(given: Given, *, is_stream: bool) -> Limits:
    """Raises WrongUsage, or ConfigError for the report of --compare."""
    from llm_proxy.benchmark.comparison import read_report
    from llm_proxy.benchmark.composition import Limits
    from llm_proxy.cli.benchmark_workload import parse_percentage

    slo, goodput, max_regression = _slo(given), _goodput(given), _max_regression(given)
    _refuse_added_of_search(given, slo)
    limited = (*(limit.metric for limit in slo), *(limit.metric for limit in max_regression))
    _refuse_what_is_not_measured(given, limited)
    _refuse_what_is_not_searched(given, limited)
    if not is_stream:
        _refuse_limits_of_streams(goodput)
    return Limits(
        slo=slo,
        goodput=goodput,
        max_error_rate=parse_percentage("--max-error-rate", given.max_error_rate),
        old=None if given.compare is None else read_report(given.compare),
        old_file="" if given.compare is None else given.compare.name,
        max_regression=max_regression,
    )


def p99_limits_ms(given: Given) -> tuple[float, ...]:
    """Those of --frontier, ascending. Raises WrongUsage."""
    from llm_proxy.benchmark.frontier import parse_limits

    return () if given.frontier is None else parse_limits(given.frontier)


def longest_allowed_s(given: Given) -> float:
    """Of all times that are limited; 0.0 without any. Raises WrongUsage."""
    limits_ms = [one.limit for one in _slo(given) if one.metric.unit == "ms"]
    limits_ms += [one.limit_ms for one in _goodput(given)]
    return max((*limits_ms, *p99_limits_ms(given)), default=0.0) / 1000


def _slo(given: Given) -> tuple[Threshold, ...]:
    from llm_proxy.benchmark.thresholds import parse_slo

    return parse_slo(",".join(given.slo)) if given.slo else ()


def _max_regression(given: Given) -> tuple[RegressionLimit, ...]:
    from llm_proxy.benchmark.thresholds import parse_max_regression

    return () if given.max_regression is None else parse_max_regression(given.max_regression)


def _goodput(given: Given) -> tuple[GoodputLimit, ...]:
    from llm_proxy.benchmark.goodput import parse_goodput

    return () if given.goodput is None else parse_goodput(given.goodput)


def _refuse_added_of_search(given: Given, slo: Iterable[Threshold]) -> None:
    search = "--find-max" if given.find_max else "--frontier" if given.frontier else ""
    if search and any(limit.metric.family.startswith("added") for limit in slo):
        raise WrongUsage(f"{search} searches with the target alone: no --slo on what is added")


def _refuse_what_is_not_measured(given: Given, limited: Iterable[Metric]) -> None:
    families = {metric.family for metric in limited}
    if given.goodput is None and "goodput" in families:
        raise WrongUsage(
            "a limit on goodput needs --goodput: it says what each request must keep to; "
            "try --goodput latency=50ms"
        )
    if given.frontier is None and "frontier" in families:
        raise WrongUsage(
            "a limit on frontier.… needs --frontier: it is about the rates that this finds"
        )


def _refuse_what_is_not_searched(given: Given, limited: Iterable[Metric]) -> None:
    from llm_proxy.benchmark.metric import frontier_metric

    searched = [frontier_metric(limit_ms) for limit_ms in p99_limits_ms(given)]
    for metric in limited:
        if metric.family == "frontier" and metric not in searched:
            names = ", ".join(one.name for one in searched)
            raise WrongUsage(f"--frontier doesn't look for {metric.name}: it finds {names}")


def _refuse_limits_of_streams(goodput: Iterable[GoodputLimit]) -> None:
    from llm_proxy.benchmark.goodput import OF_STREAMS

    for limit in goodput:
        if limit.figure in OF_STREAMS:
            raise WrongUsage(
                f"--goodput {limit.name.replace('<=', '=')} needs --stream: only streams have it"
            )
