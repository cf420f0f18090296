"""When the requests of an open load are due."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from llm_proxy.benchmark.plan import Open, Replay

_ROUNDING: Final = 1e-12


def due_times(
    load: Open | Replay, *, seed: int, process: int = 0, processes: int = 1, lanes: int = 1
) -> Iterator[float]:
    """Seconds since the start, ascending. Rates are those of each lane; processes share them:
    constant and recorded arrivals are dealt out in turn, Poisson processes add up to one."""
    if isinstance(load, Replay):
        yield from _recorded(load, range(process, len(load.offsets_s), processes), lanes)
        return
    if load.arrivals == "constant":
        counts = _in_turn(process, processes)
    else:
        counts = _exponential(random.Random(f"{seed}/{process}"), float(processes))
    yield from _invert(load, counts, lanes)


def due_between(
    load: Open | Replay, begin_s: float, end_s: float, *, processes: int = 1, lanes: int = 1
) -> int:
    """How many of these there are for a process, on average, without looking at each of them."""
    if isinstance(load, Replay):
        begin, end = (bisect_left(load.offsets_s, moment_s) for moment_s in (begin_s, end_s))
        return (end - begin) * lanes // processes
    return round((_arrivals(load, end_s) - _arrivals(load, begin_s)) * lanes / processes)


def _arrivals(load: Open, until_s: float) -> float:
    """Of one lane, since the start."""
    total, rate = 0.0, load.start_rate
    for stage in load.stages:
        share = min(max(until_s / stage.duration_s, 0.0), 1.0)
        total += (rate + (stage.rate - rate) * share / 2) * share * stage.duration_s
        rate = stage.rate
        until_s -= stage.duration_s
    return total


def _recorded(load: Replay, arrivals: range, lanes: int) -> Iterator[float]:
    """The second lane has its turn midway to the next arrival, where the first is answered."""
    for arrival in arrivals:
        is_last = arrival + 1 == len(load.offsets_s)
        offset = load.offsets_s[arrival]
        gap = (load.duration_s if is_last else load.offsets_s[arrival + 1]) - offset
        for lane in range(lanes):
            yield offset + gap * lane / lanes


def _in_turn(process: int, processes: int) -> Iterator[float]:
    count = float(process)
    while True:
        yield count
        count += processes


def _exponential(source: random.Random, mean: float) -> Iterator[float]:
    count = 0.0
    while True:
        count += source.expovariate(1.0 / mean)
        yield count


def _invert(load: Open, counts: Iterator[float], lanes: int) -> Iterator[float]:
    """Times at which so many requests were due: the rate is linear within a stage."""
    begins_at = before = 0.0
    rate = load.start_rate * lanes
    count = next(counts)
    for stage in load.stages:
        end_rate = stage.rate * lanes
        until = before + (rate + end_rate) / 2 * stage.duration_s
        slope = (end_rate - rate) / stage.duration_s
        # 7 requests at 100/s take 0.07 s, of which 100/s make 7.000000000000001.
        end = until * (1 - _ROUNDING)
        while count < end:
            yield begins_at + _time_of(max(count - before, 0.0), rate, slope)
            count = next(counts)
        before, rate = until, end_rate
        begins_at += stage.duration_s


def _time_of(count: float, rate: float, slope: float) -> float:
    """Solves rate * t + slope * t² / 2 = count, in the form that is exact for small slopes."""
    root = math.sqrt(max(0.0, rate * rate + 2 * slope * count))
    return 2 * count / (rate + root) if count else 0.0
