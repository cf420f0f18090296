"""The figures of a run by name, for limits and comparisons: `p99`, `ttft.p50`, `rps`."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

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

Unit = Literal["ms", "rps", "share"]


class Metric(msgspec.Struct, frozen=True):
    family: str  # one of FAMILIES, "rps" or "errors"
    statistic: str = ""  # of a family; "typical" of the added ones

    @property
    def name(self) -> str:
        """As it is written: the latency's own statistics stand alone."""
        if self.family in ("rps", "errors"):
            return self.family
        return self.statistic if self.family == "latency" else f"{self.family}.{self.statistic}"

    @property
    def subject(self) -> str:
        """Of a sentence."""
        return {"rps": "the rate", "errors": "the error rate"}.get(self.family, self.name)

    @property
    def unit(self) -> Unit:
        if self.family == "rps":
            return "rps"
        return "share" if self.family == "errors" else "ms"

    @property
    def more_is_better(self) -> bool:
        return self.family == "rps"

    @property
    def absence(self) -> str:
        """Why there is no value."""
        return FAMILIES[self.family]

    def value(self, measured: Side | Results) -> float | None:
        """None: not measured. A side alone knows nothing of what is added."""
        side = measured.side if isinstance(measured, Results) else measured
        if self.family == "rps":
            return side.requests_per_second
        if self.family == "errors":
            return side.error_rate
        if self.family.startswith("added"):
            distribution: Distribution | None = _added(measured, self.family)
        else:
            distribution = _distribution(side, self.family)
        return None if distribution is None else _statistic(distribution, self.statistic)

    def show(self, value: float) -> str:
        if self.unit == "share":
            return f"{_digits(value * 100)} %"
        return f"{_digits(value)} {'ms' if self.unit == 'ms' else 'requests/s'}"


RPS: Final = Metric("rps")
ERRORS: Final = Metric("errors")


def parse_metric(text: str) -> Metric:
    name = text.strip().lower()
    if name in ("rps", "errors"):
        return Metric(name)
    family, _, statistic = name.partition(".")
    if name in STATISTICS:  # first, since p99.9 has a point in it
        return Metric("latency", name)
    if family in FAMILIES and statistic in _statistics(family):
        return Metric(family, statistic)
    if family in FAMILIES:
        raise ValueError(
            f"{text!r} isn't a figure of {family}; it has {_list(_statistics(family))}"
        )
    raise ValueError(
        f"{text[:40]!r} isn't a figure; there are rps, errors, {_list(STATISTICS)} (of the "
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


def _statistic(distribution: Distribution, statistic: str) -> float:
    value: float = getattr(distribution, statistic.replace(".", "_"))
    return value


def _digits(value: float) -> str:
    """Four significant ones: what a report holds."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{float(f'{value:.4g}'):f}".rstrip("0").rstrip(".") or "0"


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(words)
