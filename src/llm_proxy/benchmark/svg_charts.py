"""The charts of the HTML report: each one a figure that says what it shows without colours too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from xml.etree.ElementTree import Element

from llm_proxy.benchmark.markup import add, node
from llm_proxy.benchmark.report import Histogram, Report, Second
from llm_proxy.benchmark.svg_axes import (
    HEIGHT,
    TOP,
    Scale,
    frame,
    log_range,
    milliseconds,
    number,
    percent,
    x_scale,
    y_scale,
)
from llm_proxy.benchmark.svg_figure import drawing, figure

Point = tuple[float, float]
_ROOM_FOR_NAMES: Final = 96.0  # right of the lines
_LINE_HEIGHT: Final = 14.0
_MANY: Final = 150  # points: closer than two pixels


def cdf_chart(report: Report) -> Element | None:
    """What share of the requests was at most as slow."""
    curves = {"proxied": report.cdf, "direct": report.direct.cdf if report.direct else ()}
    curves = {lane: points for lane, points in curves.items() if points}
    if not curves:
        return None
    x = x_scale(
        *log_range([ms for points in curves.values() for ms, _share in points]), is_log=True
    )
    y = y_scale(0.0, 1.0)
    chart = drawing("Latency: the share of requests that were at most as slow")
    add(chart, _frame(x, y, y_label="share of requests", y_text=percent))
    for lane, points in curves.items():
        visible = [(max(ms, x.low), share) for ms, share in points]
        add(chart, _steps(x, y, visible, f"line {lane}"))
    add(chart, *_curve_names(x, y, curves))
    return figure(
        "Latency, cumulative", "From the intended start of each request. Left is faster.", chart
    )


def histogram_chart(report: Report) -> Element | None:
    """How many requests were as slow: bars, and the direct ones' outline."""
    bars, outline = report.histogram, report.direct.histogram if report.direct else None
    shown = [histogram for histogram in (bars, outline) if histogram and sum(histogram.counts)]
    if bars is None or not shown:
        return None
    x = x_scale(*log_range([ms for one in shown for ms in one.edges_ms]), is_log=True)
    y = y_scale(0.0, max(max(one.counts) for one in shown) * 1.04)
    chart = drawing("Latency: how many requests were as slow")
    add(chart, _frame(x, y, y_label="requests", y_text=number))
    add(chart, *_bars(x, y, bars))
    if outline is not None:
        add(chart, _polyline(_outline(x, y, outline), "line direct"))
    return figure("Latency, histogram", "Bins of equal width on a logarithmic axis.", chart)


def rate_chart(report: Report) -> Element | None:
    """Requests a second over the run, and when some failed."""
    series = report.series
    if not series:
        return None
    x = _time_scale(series, right=14.0)
    top = max(second.requests_per_second for second in series)
    y = y_scale(0.0, top * 1.12 or 1.0)
    points = [(_middle(second), second.requests_per_second) for second in series]
    chart = drawing("Requests a second over the run; errors are marked")
    add(chart, _frame(x, y, y_label="requests/s", x_label="seconds", x_text=number, y_text=number))
    add(chart, *_line(x, y, points, "line proxied"))
    add(chart, *(_error_mark(x, y, second) for second in series if second.errors))
    failed = sum(second.errors for second in series)
    note = f"▲ marks slices with errors ({failed:,} in all)." if failed else "No errors."
    return figure("Rate over time", note, chart)


def latency_chart(report: Report) -> Element | None:
    """p50 and p99 over the run, of both sides."""
    curves = {
        (lane, name): [(_middle(s), ms) for s in report.series for ms in (getattr(s, field),)]
        for lane, name, field in (
            ("proxied", "p50", "p50_ms"),
            ("proxied", "p99", "p99_ms"),
            ("direct", "p50", "direct_p50_ms"),
            ("direct", "p99", "direct_p99_ms"),
        )
    }
    known = [ms for points in curves.values() for _at, ms in points if ms]
    if not known:
        return None
    x, y = _time_scale(report.series, right=_ROOM_FOR_NAMES), _latency_scale(known)
    chart = drawing("Latency over the run: p50 and p99")
    add(
        chart,
        _frame(x, y, y_label="latency", x_label="seconds", x_text=number, y_text=milliseconds),
    )
    ends = []
    for (lane, name), points in curves.items():
        add(chart, *_line(x, y, points, f"line {lane} {name}"))
        last = next((ms for _at, ms in reversed(points) if ms is not None), None)
        if last is not None:
            ends.append((y(max(last, y.low)), f"{lane} {name}", lane))
    add(chart, *_names_at_the_end(x, ends))
    return figure("Latency over time", "Solid: p50. Dashed: p99.", chart)


def _latency_scale(known: Sequence[float]) -> Scale:
    """From 0 while everything can be told apart so, else logarithmic."""
    if max(known) > 12 * min(known):
        return y_scale(*log_range(known), is_log=True)
    return y_scale(0.0, max(known) * 1.1)


def _frame(
    x: Scale,
    y: Scale,
    *,
    y_label: str,
    y_text: Callable[[float], str],
    x_label: str = "latency",
    x_text: Callable[[float], str] = milliseconds,
) -> Element:
    return frame(x, y, x_label=x_label, y_label=y_label, x_text=x_text, y_text=y_text)


def _steps(x: Scale, y: Scale, points: Iterable[Point], class_: str) -> Element:
    """Up at each point: nothing is known between them."""
    corners: list[Point] = [(x.start, y(0))]
    for ms, share in points:
        corners += [(x(ms), corners[-1][1]), (x(ms), y(share))]
    return _polyline(corners, class_)


def _bars(x: Scale, y: Scale, histogram: Histogram) -> Iterable[Element]:
    for i, count in enumerate(histogram.counts):
        low, high = histogram.edges_ms[i], histogram.edges_ms[i + 1]
        if count and low > 0:
            title = f"{milliseconds(low)} to {milliseconds(high)}: {count:,} requests"
            yield node(
                "rect",
                node("title", title),
                x=x(low) + 0.5,
                y=y(count),
                width=max(x(high) - x(low) - 1, 0.5),
                height=y.start - y(count),
                class_="bar proxied",
            )


def _outline(x: Scale, y: Scale, histogram: Histogram) -> list[Point]:
    corners = [(x(max(histogram.edges_ms[0], x.low)), y.start)]
    for i, count in enumerate(histogram.counts):
        low, high = (x(max(ms, x.low)) for ms in histogram.edges_ms[i : i + 2])
        corners += [(low, y(count)), (high, y(count))]
    return [*corners, (corners[-1][0], y.start)]


def _line(
    x: Scale, y: Scale, points: Iterable[tuple[float, float | None]], class_: str
) -> Iterable[Element]:
    """Broken where nothing was measured; a lonely point is a dot."""
    for part in _unbroken(points):
        pixels = [(x(at), y(max(value, y.low))) for at, value in part]
        if len(pixels) > 1:
            yield _polyline(pixels, class_ if len(pixels) < _MANY else f"{class_} many")
        else:
            yield node("circle", cx=pixels[0][0], cy=pixels[0][1], r=2.5, class_=f"dot {class_}")


def _unbroken(points: Iterable[tuple[float, float | None]]) -> Iterable[list[Point]]:
    part: list[Point] = []
    for at, value in points:
        if value is not None:
            part.append((at, value))
        elif part:
            yield part
            part = []
    if part:
        yield part


def _polyline(pixels: Sequence[Point], class_: str) -> Element:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    return node("polyline", points=points, class_=class_)


def _error_mark(x: Scale, y: Scale, second: Second) -> Element:
    left, bottom = x(_middle(second)), y.start
    shape = f"M{left - 4:.1f},{bottom:.1f} h8 l-4,-8 z"
    title = f"{second.errors:,} errors at {number(second.at_s)} s"
    return node("path", node("title", title), d=shape, class_="error-mark")


def _time_scale(series: Sequence[Second], *, right: float) -> Scale:
    last = series[-1]
    return x_scale(0.0, last.at_s + last.length_s, right=right)


def _middle(second: Second) -> float:
    return second.at_s + second.length_s / 2


def _curve_names(x: Scale, y: Scale, curves: Mapping[str, Sequence[Point]]) -> Iterable[Element]:
    """The faster one's name left of its curve, the slower one's right, so that they don't meet."""
    medians = {
        lane: next((ms for ms, share in points if share >= 0.5), points[-1][0])
        for lane, points in curves.items()
    }
    for rank, (lane, ms) in enumerate(sorted(medians.items(), key=lambda item: item[1])):
        is_left = rank == 0 and len(medians) > 1
        at = x(max(ms, x.low)) + (-9 if is_left else 9)
        height = y(0.56 if is_left else 0.44)
        alignment = "end" if is_left else "start"
        yield node("text", lane, x=at, y=height, class_=f"name {lane} {alignment}")


def _names_at_the_end(x: Scale, ends: list[tuple[float, str, str]]) -> Iterable[Element]:
    """Beside the ends of their lines, and one below the other where these are close."""
    free = TOP
    spread = []
    for height, name, lane in sorted(ends):
        free = max(height, free)
        spread.append((free, name, lane))
        free += _LINE_HEIGHT
    excess = max(0.0, free - _LINE_HEIGHT - (HEIGHT - 44.0))
    for height, name, lane in spread:
        at = height - excess + 4
        yield node("text", name, x=x.end + 6, y=at, class_=f"name {lane}")
