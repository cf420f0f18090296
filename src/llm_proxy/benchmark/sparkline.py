"""A row of figures as one line of little bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇"  # none is full: rows of them stay apart
_PLAIN_BARS: Final = "_.-=+*#"


def sparkline(values: Sequence[float], width: int, *, has_blocks: bool = True) -> str:
    """Bars from 0 up to the highest figure; where there isn't room for all, each is a mean."""
    bars = _BARS if has_blocks else _PLAIN_BARS
    means = _means(values, width)
    top = max(means, default=0)
    if top <= 0:
        return bars[0] * len(means)
    return "".join(bars[min(int(value / top * len(bars)), len(bars) - 1)] for value in means)


def _means(values: Sequence[float], width: int) -> list[float]:
    """Of `width` neighbouring groups, as equal as can be."""
    count = min(len(values), max(width, 1))
    edges = [len(values) * i // count for i in range(count + 1)] if count else []
    return [
        sum(values[start:end]) / (end - start) for start, end in zip(edges, edges[1:], strict=False)
    ]
