"""Figures for people: no more digits than their spread supports, in the unit that reads best."""

from __future__ import annotations

import math
from typing import Final

from llm_proxy.benchmark.report import Spread

MOST_DIGITS: Final = 3  # what the histograms hold
_REPORT_DIGITS: Final = 4  # of --json: rounding them for people must not round twice
_UNITS: Final = (("µs", 0.001), ("ms", 1.0), ("s", 1000.0))


def digits(value: float, spread: Spread | None = None) -> int:
    """How many significant digits are sure: the last one is where half the spread begins."""
    if spread is None or not value:
        return MOST_DIGITS
    half = (spread.high - spread.low) / 2
    if half <= 0:
        return MOST_DIGITS
    return min(max(_magnitude(value) - _magnitude(half) + 1, 1), MOST_DIGITS)


def format_ms(value: float | None, spread: Spread | None = None, *, signed: bool = False) -> str:
    """`12.3 ms`, `870 µs`, `1.25 s`; `-` for what wasn't measured."""
    if value is None:
        return "-"
    count = digits(value, spread)
    rounded = round_to(value, count)
    name, size = _unit(rounded)
    return f"{_number(rounded / size, count, signed=signed)} {name}"


def format_rate(value: float | None, spread: Spread | None = None) -> str:
    """Of requests, or tokens, in a second; without a unit: `25,400`, `3.17`."""
    return "-" if value is None else format_number(value, spread)


def format_number(value: float, spread: Spread | None = None, *, signed: bool = False) -> str:
    return _number(value, digits(value, spread), signed=signed)


def format_share(value: float) -> str:
    """`0.25 %` of 0.0025, two digits at most below 10 %, and none that is a mere 0."""
    return _percent(value, 2 if abs(value) < 0.1 else 3)


def format_change(share: float) -> str:
    """`+12.5 %`, `-4.86 %`, `+19,100 %`."""
    return _percent(share, MOST_DIGITS, signed=True)


def format_met(share: float, count: int = 2) -> str:
    """A share that should be all: so many digits of what is missing, `99.96 %`."""
    percent, missing = share * 100, round_to(100 - share * 100, count)
    shown = round_to(percent, count) if percent < missing else 100 - missing
    return f"{shown:.6f}".rstrip("0").rstrip(".") + " %"


def round_to(value: float, count: int) -> float:
    """To so many significant digits."""
    if not value or not math.isfinite(value):
        return value
    return round(value, count - 1 - _magnitude(value))


def rounded(value: float) -> float:
    """As numbers stand in reports."""
    return round_to(value, _REPORT_DIGITS)


def _percent(share: float, count: int, *, signed: bool = False) -> str:
    text = _number(share * 100, count, signed=signed)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def _number(value: float, count: int, *, signed: bool = False) -> str:
    value = round_to(value, count) or 0.0  # 0.0: no "-0"
    decimals = max(count - 1 - _magnitude(value), 0) if value else 0
    return f"{value:{'+' if signed and value else ''},.{decimals}f}"


def _unit(ms: float) -> tuple[str, float]:
    """The largest that leaves something before the point."""
    chosen = _UNITS[0]
    for unit in _UNITS[1:]:
        if abs(ms) >= unit[1]:
            chosen = unit
    return chosen if ms else _UNITS[1]


def _magnitude(value: float) -> int:
    """The power of ten of the first digit."""
    return math.floor(math.log10(abs(value)))
