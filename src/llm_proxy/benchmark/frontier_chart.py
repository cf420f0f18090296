"""Rate against p99: every window of a frontier as a dot, and the frontier as a line of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final
from xml.etree.ElementTree import Element

from llm_proxy.benchmark.frontier import limit_text
from llm_proxy.benchmark.markup import add, node
from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.report import Frontier, Probe
from llm_proxy.benchmark.svg_axes import (
    Scale,
    frame,
    log_range,
    milliseconds,
    number,
    x_scale,
    y_scale,
)
from llm_proxy.benchmark.svg_figure import drawing, figure

_WIDE: Final = 12
_NAME_HEIGHT: Final = 13.0
_NOTE: Final = (
    "Dots are windows, hollow where they missed a limit beside p99 or were rig-bound; dashes are "
    "the limits. The line is the frontier."
)


def frontier_chart(found: Frontier) -> Element | None:
    measured = [(probe, probe.latency_ms.p99) for probe in found.probes if probe.latency_ms]
    if not measured:
        return None
    limits = [point.p99_limit_ms for point in found.points]
    x = _rates(found, [probe.rate for probe, _p99 in measured])
    y = y_scale(*log_range([*limits, *(p99 for _probe, p99 in measured)]), is_log=True)
    title = "p99 at each rate that was tried, and the highest rate within each limit"
    chart = drawing(title)
    names = {"x_label": "requests/s asked for", "y_label": "p99"}
    add(chart, frame(x, y, x_text=number, y_text=milliseconds, **names))
    add(chart, *_limits(x, y, limits))
    add(chart, _steps(x, y, found))
    add(chart, *(_window(x, y, probe, p99) for probe, p99 in measured))
    return figure("Throughput frontier", _NOTE, chart)


def _rates(found: Frontier, tried: Sequence[float]) -> Scale:
    """From 0 while the points can be told apart so, else logarithmic."""
    rates = [point.rate for point in found.points if point.rate is not None] or tried
    if max(rates) > _WIDE * min(rates):
        return x_scale(*log_range(tried), is_log=True)
    return x_scale(0.0, max(tried) * 1.04)


def _limits(x: Scale, y: Scale, limits_ms: Sequence[float]) -> Iterator[Element]:
    """With their names, where there is room for them."""
    lowest = math.inf
    for limit_ms in limits_ms:
        at = y(limit_ms)
        yield node("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="limit")
        if lowest - at > _NAME_HEIGHT:
            name = limit_text(limit_ms)
            yield node("text", name, x=x.end, y=at - 3, class_="axis-name end")
            lowest = at


def _steps(x: Scale, y: Scale, found: Frontier) -> Element | None:
    """Level at each limit up to its rate, then up to the next limit."""
    corners = list(_corners(x, y, found))
    if not corners:
        return None
    points = " ".join(f"{left:.1f},{top:.1f}" for left, top in corners)
    return node("polyline", points=points, class_="line proxied")


def _corners(x: Scale, y: Scale, found: Frontier) -> Iterator[tuple[float, float]]:
    left = x.start
    for point in found.points:
        if point.rate is not None:
            at = y(point.p99_limit_ms)
            yield left, at
            left = x(point.rate)
            yield left, at


def _window(x: Scale, y: Scale, probe: Probe, p99: float) -> Element:
    is_sound = probe.passed and not probe.rig_bound
    title = f"{format_rate(probe.rate)}/s: p99 {milliseconds(p99)}"
    if probe.reason or probe.rig_bound:
        title += f" ({probe.reason or 'rig-bound'})"
    return node(
        "circle",
        node("title", title),
        cx=x(probe.rate),
        cy=y(p99),
        r=3.0,
        class_="dot proxied" if is_sound else "dot hollow",
    )
