"""The frame of a chart: two scales, their ticks, a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from llm_proxy.benchmark.markup import node

WIDTH: Final = 460.0  # narrow, so that text stays legible on a telephone
HEIGHT: Final = 270.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 26.0, 42.0
_STEPS: Final = (1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values `low` to `high` lie between the pixels `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = self._bend(self.low), self._bend(self.high), self._bend(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        if self.is_log:
            found = log_ticks(self.low, self.high)
            if len(found) > 2:
                return found
        return linear_ticks(self.low, self.high, count)

    def _bend(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


def x_scale(low: float, high: float, *, is_log: bool = False, right: float = RIGHT) -> Scale:
    return Scale(low=low, high=high, start=LEFT, end=WIDTH - right, is_log=is_log)


def y_scale(low: float, high: float, *, is_log: bool = False) -> Scale:
    return Scale(low=low, high=high, start=HEIGHT - BOTTOM, end=TOP, is_log=is_log)


def log_range(values: Sequence[float]) -> tuple[float, float]:
    """With some room, so that a single value has an axis too."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    return (low, high) if high > low * 1.2 else (low / 1.2, high * 1.2)


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    step = _round_step((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 … where there is room for them, else the decades, or fewer."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = last - first
    steps = _STEPS if math.log10(high / low) < 2.6 else _STEPS[:1]
    stride = max(1, math.ceil(decades / 8))
    ticks = [step * 10.0**power for power in range(first, last + 1, stride) for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def frame(
    x: Scale,
    y: Scale,
    *,
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
) -> Element:
    """Grid, ticks and the names of the axes; each tick carries its value."""
    group = node("g", class_="axes")
    for value in y.ticks():
        group.append(_line(x.start, y(value), x.end, y(value), "grid"))
        group.append(_tick("y", value, (x.start - 7, y(value) + 4), y_text(value)))
    for value in x.ticks():
        group.append(_line(x(value), y.start, x(value), y.start + 4, "axis"))
        group.append(_tick("x", value, (x(value), y.start + 17), x_text(value)))
    group.append(_line(x.start, y.start, x.end, y.start, "axis"))
    middle = (x.start + x.end) / 2
    group.append(node("text", x_label, x=middle, y=y.start + 35, class_="axis-name middle"))
    group.append(node("text", y_label, x=0, y=TOP - 13, class_="axis-name"))
    return group


def milliseconds(value: float) -> str:
    """A tick's text."""
    if value == 0:
        return "0"
    for unit, size in (("s", 1000.0), ("ms", 1.0)):
        if abs(value) >= size * 0.9999:
            return f"{value / size:.4g} {unit}"
    return f"{value * 1000:.4g} µs"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(value: float) -> str:
    return f"{value * 100:.4g} %"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(nice * power for nice in (1.0, 2.0, 2.5, 5.0, 10.0) if step <= nice * power * 1.001)


def _tick(axis: str, value: float, at: tuple[float, float], text: str) -> Element:
    alignment = "middle" if axis == "x" else "end"
    attributes = {"data-value": f"{value:.6g}"}
    tick = node("text", text, x=at[0], y=at[1], class_=f"tick tick-{axis} {alignment}")
    tick.attrib.update(attributes)
    return tick


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Element:
    return node("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)
