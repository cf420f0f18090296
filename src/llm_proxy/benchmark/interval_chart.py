"""What is added, with its uncertainty: an interval beside zero."""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element

from llm_proxy.benchmark.markup import add, node
from llm_proxy.benchmark.report import Added
from llm_proxy.benchmark.svg_axes import WIDTH, Scale, linear_ticks, milliseconds
from llm_proxy.benchmark.svg_figure import drawing

_HEIGHT: Final = 84.0
_MIDDLE: Final = 30.0
_AXIS: Final = 58.0


def interval_chart(name: str, added: Added) -> Element:
    """Zero, the typical one, and its 95 % interval."""
    low, high = added.ci95
    text = (
        f"{name}: {milliseconds(added.typical)}, 95 % between {milliseconds(low)} and "
        f"{milliseconds(high)}"
    )
    x = _scale(added)
    chart = drawing(text, height=_HEIGHT, class_="interval")
    for value in linear_ticks(x.low, x.high, 5):
        add(chart, *_tick(x, 0.0 if abs(value) < 1e-12 else value))
    add(
        chart,
        _rule(x(0), "zero"),
        _bar(x(low), x(high), 9, "ci"),
        node("circle", cx=x(added.typical), cy=_MIDDLE, r=3.5, class_="typical"),
    )
    return chart


def _scale(added: Added) -> Scale:
    low = min(0.0, added.ci95[0], added.typical)
    high = max(0.0, added.ci95[1], added.typical)
    room = (high - low) * 0.08 or 0.001
    return Scale(low=low - room, high=high + room, start=16.0, end=WIDTH - 16.0)


def _tick(x: Scale, value: float) -> tuple[Element, Element]:
    at = x(value)
    text = node("text", milliseconds(value), x=at, y=_AXIS + 18, class_="tick tick-x middle")
    text.set("data-value", f"{value:.6g}")
    return _rule(at, "grid"), text


def _rule(at: float, class_: str) -> Element:
    return node("line", x1=at, x2=at, y1=8, y2=_AXIS, class_=class_)


def _bar(start: float, end: float, thickness: float, class_: str) -> Element:
    return node(
        "rect",
        x=start,
        y=_MIDDLE - thickness / 2,
        width=max(end - start, 1.0),
        height=thickness,
        rx=thickness / 2,
        class_=class_,
    )
