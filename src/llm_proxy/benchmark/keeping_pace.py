"""Whether answers keep pace with arrivals: else a probe only ends before its limits are missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from llm_proxy.benchmark.plan import Open
from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.report import Second

_LEAST_SHARE: Final = 0.95  # as exact as the search for the highest rate
_ROUNDING_S: Final = 0.001
_JITTER: Final = 2  # answers that may fall on the other side of the bounds
_DEVIATIONS: Final = 3  # of the number of Poisson arrivals


def shortfall(series: Sequence[Second], load: Open) -> str:
    """What is wrong with a run at one rate; empty when nothing is, or it is too short to tell.

    In its second half as much must end as arrives, which is so however slow the answers are, as
    long as the first of them is there by then.
    """
    half_s = load.duration_s / 2
    slices = [
        one
        for one in series
        if one.at_s >= half_s - _ROUNDING_S and one.at_s + one.length_s / 2 <= load.duration_s
    ]
    length_s = sum(one.length_s for one in slices)
    due = load.start_rate * length_s
    ended = sum(one.requests for one in slices)
    if load.arrivals == "poisson" and slices:  # at least as many as were seen
        seen = ended + slices[-1].in_flight - _in_flight_before(slices[0], series)
        due = max(due - _DEVIATIONS * math.sqrt(due), seen)
    if ended >= _LEAST_SHARE * due - _JITTER:
        return ""
    return (
        f"only {format_rate(ended / length_s)}/s of {format_rate(load.start_rate)}/s were "
        "answered in the second half of the probe: they pile up, or it is too short for them "
        "(--duration)"
    )


def _in_flight_before(first: Second, series: Sequence[Second]) -> int:
    return next((one.in_flight for one in reversed(series) if one.at_s < first.at_s), 0)
