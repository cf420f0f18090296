"""The figures of a run by name, for limits and comparisons: `p99`, `ttft.p50`, `rps`."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from llm_proxy.benchmark.precision import format_met
from llm_proxy.benchmark.report import Added, Distribution, Report, Side
from llm_proxy.benchmark.results import Results

STATISTICS: Final = ("min", "mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "max")
FAMILIES: Final = {
    "latency": "no request was answered below 400",
    "service": "no request was answered below 400",
    "first_byte": "no answer had a body",
    "ttft": "no stream said anything: --stream measures it",
    "second_token": "no stream had a second token: --stream measures it",
    "inter_token": "no stream had a second token: --stream measures it",
    "added": "nothing was measured beside it: --direct-url does",
    "added_ttft": "nothing was measured beside it: --direct-url and --stream do",
    "added_inter_token": "nothing was measured beside it: --direct-url and --stream do",
}  # name: why it may be missing

_DIGITS: Final = 4
_FRONTIER: Final = "frontier"  # its statistics are its limits, such as 5ms
_LIMIT: Final = re.compile(r"(\d+(?:\.\d+)?)ms", re.ASCII)
_ALONE: Final = ("rps", "errors", "goodput")  # figures without statistics

Unit = Literal["ms", "rps", "share"]


class Metric(msgspec.Struct, frozen=True):
    family: str  # one of FAMILIES, one that stands alone, or "frontier"
    statistic: str = ""  # of a family; "typical" of the added ones; a limit of the frontier

    @property
    def name(self) -> str:
        """As it is written: the latency's own statistics stand alone."""
        if self.family in _ALONE:
            return self.family
        return self.statistic if self.family == "latency" else f"{self.family}.{self.statistic}"

    @property
    def subject(self) -> str:
        """Of a sentence."""
        if self.family == _FRONTIER:
            return f"the rate within a p99 of {self.statistic}"
        return {"rps": "the rate", "errors": "the error rate"}.get(self.family, self.name)

    @property
    def unit(self) -> Unit:
        if self.family in ("rps", _FRONTIER):
            return "rps"
        return "share" if self.family in ("errors", "goodput") else "ms"

    @property
    def more_is_better(self) -> bool:
        return self.family in ("rps", "goodput", _FRONTIER)

    @property
    def is_of_search(self) -> bool:
        """What a search finds: demanded of its answer, and not of each probe."""
        return self.family in ("rps", _FRONTIER)

    @property
    def absence(self) -> str:
        """Why there is no value."""
        if self.family == "goodput":
            return "nothing was demanded of each request: --goodput does"
        if self.family == _FRONTIER:
            return f"no rate was found for it: --frontier with {self.statistic} looks for one"
        return FAMILIES[self.family]

    def value(self, measured: Side | Results) -> float | None:
        """None: not measured. A side alone knows nothing of what is added."""
        side = measured.side if isinstance(measured, Results) else measured
        if self.family == "rps":
            return side.requests_per_second
        if self.family == "errors":
            return side.error_rate
        if self.family == "goodput":
            return None if side.goodput is None else side.goodput.share
        if self.family == _FRONTIER:
            return _frontier_rate(side, self)
        if self.family.startswith("added"):
            distribution: Distribution | None = _added(measured, self.family)
        else:
            distribution = _distribution(side, self.family)
        return None if distribution is None else _statistic(distribution, self.statistic)

    def show(self, value: float) -> str:
        if self.family == "goodput":
            return format_met(value, _DIGITS)
        if self.unit == "share":
            return f"{_digits(value * 100)} %"
        return f"{_digits(value)} {'ms' if self.unit == 'ms' else 'requests/s'}"


RPS: Final = Metric("rps")
ERRORS: Final = Metric("errors")


def frontier_metric(limit_ms: float) -> Metric:
    """The highest rate that kept p99 within the limit."""
    return Metric(_FRONTIER, f"{limit_ms:g}ms")


def parse_metric(text: str) -> Metric:
    name = text.strip().lower()
    if name in _ALONE:
        return Metric(name)
    family, _, statistic = name.partition(".")
    if name in STATISTICS:  # first, since p99.9 has a point in it
        return Metric("latency", name)
    if family == _FRONTIER:
        limit = _LIMIT.fullmatch(statistic)
        if limit is None:
            raise ValueError(f"{text[:40]!r} isn't a figure; write frontier.5ms of the limit 5 ms")
        return frontier_metric(float(limit[1]))
    if family in FAMILIES and statistic in _statistics(family):
        return Metric(family, statistic)
    if family in FAMILIES:
        raise ValueError(
            f"{text!r} isn't a figure of {family}; it has {_list(_statistics(family))}"
        )
    raise ValueError(
        f"{text[:40]!r} isn't a figure; there are {_list(_ALONE)}, {_list(STATISTICS)} (of the "
        f"latency) and the same of {_list(tuple(FAMILIES)[1:])}, such as ttft.p99"
    )


def _statistics(family: str) -> tuple[str, ...]:
    return (*STATISTICS, "typical") if family.startswith("added") else STATISTICS


def _distribution(side: Side, family: str) -> Distribution | None:
    if family in ("latency", "service", "first_byte"):
        found: Distribution | None = getattr(side, f"{family}_ms")
        return found
    found = None if side.streams is None else getattr(side.streams, f"{family}_ms")
    return found


def _added(measured: Side | Results, family: str) -> Added | None:
    if not isinstance(measured, Report | Results):
        return None
    return {
        "added": measured.added_latency_ms,
        "added_ttft": measured.added_ttft_ms,
        "added_inter_token": measured.added_inter_token_ms,
    }[family]


def _frontier_rate(measured: Side, metric: Metric) -> float | None:
    found = measured.frontier if isinstance(measured, Report) else None
    points = found.points if found is not None else ()
    rates = (it.rate for it in points if frontier_metric(it.p99_limit_ms) == metric)
    return next(rates, None)


def _statistic(distribution: Distribution, statistic: str) -> float:
    value: float = getattr(distribution, statistic.replace(".", "_"))
    return value


def _digits(value: float) -> str:
    """Four significant ones: what a report holds."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{float(f'{value:.{_DIGITS}g}'):f}".rstrip("0").rstrip(".") or "0"


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(words)
