"""Reads drawn charts as a person does: pixels become values by the ticks beside them."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

Point = tuple[float, float]


def find(chart: Element, class_: str) -> list[Element]:
    """Elements with all of these classes, in their order."""
    wanted = set(class_.split())
    return [it for it in chart.iter() if wanted <= set(it.get("class", "").split())]


def texts(chart: Element, class_: str) -> list[str]:
    return [it.text or "" for it in find(chart, class_)]


def points(chart: Element, class_: str, **axes: bool) -> list[Point]:
    """Those of a line, in the units of the axes."""
    (line,) = find(chart, class_)
    pixels = [pair.split(",") for pair in line.get("points", "").split()]
    return [value_at(chart, float(x), float(y), **axes) for x, y in pixels]


def value_at(
    chart: Element, x: float, y: float, *, is_log_x: bool = False, is_log_y: bool = False
) -> Point:
    return _read(chart, "x", x, is_log=is_log_x), _read(chart, "y", y, is_log=is_log_y)


def _read(chart: Element, axis: str, pixel: float, *, is_log: bool) -> float:
    ticks = find(chart, f"tick-{axis}")
    first, last = ticks[0], ticks[-1]
    # A tick's text stands 4 pixels below the height it names.
    start, end = (float(it.get(axis, "")) - (4 if axis == "y" else 0) for it in (first, last))
    low, high = (float(it.get("data-value", "")) for it in (first, last))
    if is_log:
        low, high = math.log(low), math.log(high)
    value = low + (pixel - start) / (end - start) * (high - low)
    return math.exp(value) if is_log else value


def text_in(element: Element | None) -> str:
    assert element is not None
    return " ".join("".join(element.itertext()).split())


def rows_in(element: Element | None) -> list[list[str]]:
    """The cells of its tables."""
    assert element is not None
    return [["".join(cell.itertext()) for cell in row] for row in element.iter("tr")]
