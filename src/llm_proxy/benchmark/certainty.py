"""How sure each figure of a table of times is, also those that the report has no spread of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from llm_proxy.benchmark.precision import digits, round_to
from llm_proxy.benchmark.report import Added, Distribution, ProcessUsage, Spread
from llm_proxy.benchmark.student import NORMAL_95

_SHARES: Final = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
# What is known of one percentile holds for those further out, too, until another one is known.
_RISING: Final = (*_SHARES, "max")
_COLUMNS: Final = ("mean", *_RISING)

_CPU_TICK_S: Final = 0.01  # of Linux; each process is off by as much

_Curve = list[tuple[float, float]]


def spreads(times: Distribution, known: Mapping[str, float] | None = None) -> dict[str, Spread]:
    """By column, `min` left out: it was seen. `known` has shares of the value, as `shares_of`.
    Rounded by them, no percentile is above the next one."""
    halves = _by_ranks(times)
    if isinstance(times, Added):
        middle = (times.ci95[1] - times.ci95[0]) / 2
        halves = {name: max(half, middle) for name, half in halves.items()}
    found = {}
    for name, half in halves.items():
        value = column(times, name)
        half = max(half, (known or {}).get(name, 0.0) * abs(value))
        found[name] = _around(value, half)
    for _ in _RISING:  # each may lend its digits to the one before
        for left, right in pairwise(_RISING):
            if _shown(times, left, found) > _shown(times, right, found):
                half = min(found[name].high - column(times, name) for name in (left, right))
                for name in (left, right):
                    found[name] = _around(column(times, name), half)
    return found


def shares_of(times: Distribution, measured: Mapping[str, Spread]) -> dict[str, float]:
    """Half of each spread of the latency as a share of its value; else of the column before."""
    found, last = {}, 0.0
    for name in _COLUMNS:
        value, spread = column(times, name), measured.get(f"latency_ms.{name}")
        if spread is not None and value:
            last = (spread.high - spread.low) / 2 / abs(value)
        found[name] = last
    return found


def around(value: float, share: float) -> Spread:
    return _around(value, abs(value) * share)


def cpu_share(usage: ProcessUsage) -> float | None:
    """The share of the CPU time that the system's clocks may be off by; None: all of it."""
    off_s = _CPU_TICK_S * math.sqrt(len(usage.pids))
    return off_s / usage.cpu_s if usage.cpu_s > off_s else None


def column(times: Distribution, name: str) -> float:
    value: float = getattr(times, name.replace(".", "_"))
    return value


def _around(value: float, half: float) -> Spread:
    return Spread(low=value - half, high=value + half)


def _shown(times: Distribution, name: str, found: Mapping[str, Spread]) -> float:
    value = column(times, name)
    return round_to(value, digits(value, found[name]))


def _by_ranks(times: Distribution) -> dict[str, float]:
    """Half a 95 % interval: the ranks that a percentile may truly have, read off the others."""
    curve = _curve(times)
    halves = {"mean": NORMAL_95 * _deviation(curve) / math.sqrt(max(times.count, 1))}
    half = 0.0
    for name, share in _SHARES.items():
        reach = NORMAL_95 * math.sqrt(share * (1 - share) / max(times.count, 1))
        # Beyond the slowest request nothing is known: no surer than the percentile before.
        least = half if share + reach > 1 else 0.0
        half = max((_at(curve, share + reach) - _at(curve, share - reach)) / 2, least)
        halves[name] = half
    return halves | {"max": halves["p99.9"]}


def _curve(times: Distribution) -> _Curve:
    inner = [(share, column(times, name)) for name, share in _SHARES.items()]
    return [(0.0, times.min), *inner, (1.0, times.max)]


def _at(curve: _Curve, share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    for (left, low), (right, high) in pairwise(curve):
        if share <= right:
            return low + (high - low) * (share - left) / (right - left)
    return curve[-1][1]


def _deviation(curve: _Curve) -> float:
    """The standard deviation of values that lie evenly between the known points."""
    parts = [(right - left, low, high) for (left, low), (right, high) in pairwise(curve)]
    mean = sum(weight * (low + high) / 2 for weight, low, high in parts)
    return math.sqrt(
        sum(
            weight * ((low - mean) ** 2 + (low - mean) * (high - mean) + (high - mean) ** 2) / 3
            for weight, low, high in parts
        )
    )
