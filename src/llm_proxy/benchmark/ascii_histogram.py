"""A histogram as lines of text: where a bin begins, how many are in it, and a bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_proxy.benchmark.precision import format_ms
from llm_proxy.benchmark.report import Histogram

MOST_ROWS: Final = 12
_LEAST_BAR: Final = 8


def histogram_lines(
    histogram: Histogram, width: int, *, has_blocks: bool = True
) -> list[tuple[str, str]]:
    """Pairs of a line's text and its bar, together at most `width` columns."""
    edges, counts = _rows(histogram)
    top = max(counts, default=0)
    if not top:
        return []
    labels = [format_ms(edge) for edge in edges]
    lows, highs = max(map(len, labels[:-1])), max(map(len, labels[1:]))
    numbers = max(len(f"{count:,}") for count in counts)
    room = max(width - lows - highs - numbers - 8, _LEAST_BAR)
    dash = "–" if has_blocks else "-"
    return [
        (
            f"{low:>{lows}} {dash} {high:>{highs}}  {count:>{numbers},}  ",
            _bar(count / top * room, has_blocks=has_blocks),
        )
        for low, high, count in zip(labels, labels[1:], counts, strict=False)
    ]


def _rows(histogram: Histogram) -> tuple[list[float], list[int]]:
    """Bins of the histogram joined until they are few, and their edges read differently."""
    edges, counts = _trimmed(histogram)
    size = max(-(-len(counts) // MOST_ROWS), 1)
    while size < len(counts) and _reads_alike(edges[::size]):
        size += 1
    joined = [sum(counts[i : i + size]) for i in range(0, len(counts), size)]
    return [*edges[: len(counts) : size], edges[-1]] if edges else [], joined


def _trimmed(histogram: Histogram) -> tuple[list[float], list[int]]:
    """Without the empty bins at both ends."""
    filled = [i for i, count in enumerate(histogram.counts) if count]
    if not filled:
        return [], []
    first, last = filled[0], filled[-1] + 1
    return list(histogram.edges_ms[first : last + 1]), list(histogram.counts[first:last])


def _reads_alike(edges: Sequence[float]) -> bool:
    labels = [format_ms(edge) for edge in edges]
    return any(one == other for one, other in zip(labels, labels[1:], strict=False))


def _bar(length: float, *, has_blocks: bool) -> str:
    """What isn't nothing shows."""
    if not has_blocks:
        return "#" * (max(round(length), 1) if length else 0)
    return "▇" * round(length) or ("▏" if length else "")
