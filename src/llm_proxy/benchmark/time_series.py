"""The run in slices of equal length, however long it takes: 600 at most, then neighbours merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from operator import add
from typing import Final

from llm_proxy.benchmark.hdr_histogram import HdrHistogram, Indexed, PackedHistogram, indexed
from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.precision import rounded
from llm_proxy.benchmark.report import Second
from llm_proxy.benchmark.samples import TICKS_PER_MS, TICKS_PER_S

MOST_SLICES: Final = 600
_FIRST_LENGTH: Final = TICKS_PER_S // 4
_OPEN_SLICES: Final = 40  # the newest: they are read and written often, so they aren't packed
_FINE_POINTS: Final = 60  # a chart has as many, or slices of a second


class LaneSlice:
    """One lane in one slice."""

    __slots__ = ("_latency", "answered", "errors", "requests")

    def __init__(self) -> None:
        self.requests = self.errors = self.answered = 0
        self._latency: HdrHistogram | PackedHistogram = HdrHistogram()

    @property
    def latency(self) -> HdrHistogram:
        """To be written only while it isn't packed."""
        latency = self._latency
        return latency.unpacked() if isinstance(latency, PackedHistogram) else latency

    def pack(self) -> None:
        if isinstance(self._latency, HdrHistogram):
            self._latency = self._latency.packed()

    def note(self, *, requests: int, errors: int, latency: Indexed) -> None:
        self.requests += requests
        self.errors += errors
        self.answered += len(latency.indices)
        self._latency = self.latency
        self._latency.record_all(latency)

    def add(self, other: LaneSlice) -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.answered += other.answered
        self._latency = self.latency
        self._latency.add(other.latency)


class Slice:
    __slots__ = ("in_flight", "lanes")

    def __init__(self, lanes: int) -> None:
        self.lanes = tuple(LaneSlice() for _ in range(lanes))
        self.in_flight: dict[int, int] = {}  # by process: the last that it said

    def add(self, other: Slice) -> None:
        """The next one in time."""
        for lane, later in zip(self.lanes, other.lanes, strict=True):
            lane.add(later)
        self.in_flight |= other.in_flight

    def pack(self) -> None:
        for lane in self.lanes:
            lane.pack()


class TimeSeries:
    def __init__(self, *, lanes: int) -> None:
        self._lanes = lanes
        self._slices: list[Slice] = []
        self.length = _FIRST_LENGTH  # ticks

    def note_in_flight(self, at: int, process: int, in_flight: int) -> None:
        # A frame that comes exactly at the end of a slice tells of it.
        self._slice(max(at - 1, 0)).in_flight[process] = in_flight

    def add(self, lane: int, rows: LaneRows) -> int:
        """Counts each row, of one at least, where it ended; the last end."""
        ends: list[int] = list(map(add, rows.column("due"), rows.latency))
        first, last = max(min(ends), 0), max(max(ends), 0)
        self._slice(last)
        if first // self.length == last // self.length:
            self._slice(last).lanes[lane].note(
                requests=len(rows), errors=sum(rows.is_error()), latency=rows.indexed_latency
            )
        else:
            self._add_split(lane, rows, ends)
        return last

    def _add_split(self, lane: int, rows: LaneRows, ends: Sequence[int]) -> None:
        numbers = [max(end, 0) // self.length for end in ends]
        requests = Counter(numbers)
        errors = Counter(compress(numbers, rows.is_error()))
        answered = list(compress(numbers, rows.is_answered()))
        for number, count in requests.items():
            latency = compress(rows.answered_latency, [one == number for one in answered])
            self._slice(number * self.length).lanes[lane].note(
                requests=count, errors=errors[number], latency=indexed(list(latency))
            )

    def _slice(self, at: int) -> Slice:
        """That of this time, which may make others longer."""
        while at // self.length >= MOST_SLICES:
            self._merge_neighbours()
        number = at // self.length
        while number >= len(self._slices):
            self._slices.append(Slice(self._lanes))
            if len(self._slices) > _OPEN_SLICES:
                self._slices[-_OPEN_SLICES - 1].pack()
        return self._slices[number]

    def _merge_neighbours(self) -> None:
        self.length *= 2
        slices, self._slices = self._slices, []
        for start in range(0, len(slices), 2):
            one = _merge(slices[start : start + 2])
            one.pack()  # at once: all of them open would be a hundred MiB
            self._slices.append(one)

    def whole_slices(self, *, until: int) -> Sequence[Slice]:
        return self._slices[: until // self.length]

    def recent(self, lane: int, *, until: int, length: int) -> tuple[HdrHistogram, float]:
        """Latencies of the last whole slices before `until`, and how many seconds those are."""
        slices = self.whole_slices(until=until)[-max(length // self.length, 1) :]
        return latency_of(slices, lane), len(slices) * self.length / TICKS_PER_S

    def rates(self, *, until: int) -> tuple[float, ...]:
        """Answered requests of lane 0, of each whole second, or of each longer slice."""
        answered = [one.lanes[0].answered for one in self.whole_slices(until=until)]
        step = max(TICKS_PER_S // self.length, 1)
        whole = len(answered) // step
        seconds = step * self.length / TICKS_PER_S
        return tuple(sum(answered[i * step : (i + 1) * step]) / seconds for i in range(whole))

    def seconds(self, *, until: int) -> tuple[Second, ...]:
        """Until the end of the run, of seconds unless it was short or very long."""
        if until <= 0:
            return ()
        # What ended at the last moment is in a slice of its own, which is folded in below.
        begun = self._slices[: until // self.length + 1]
        step = 1
        while len(begun) / step > _FINE_POINTS and self.length * step < TICKS_PER_S:
            step *= 2
        length = self.length * step
        groups = [begun[start : start + step] for start in range(0, len(begun), step)]
        # A last one that was hardly begun has no rate of its own.
        if len(groups) > 1 and until - (len(groups) - 1) * length < length / 2:
            last = groups.pop()
            groups[-1] += last
        return tuple(_seconds(groups, length, until))


def latency_of(slices: Iterable[Slice], lane: int) -> HdrHistogram:
    whole = HdrHistogram()
    for one in slices:
        whole.add(one.lanes[lane].latency)
    return whole


def merged(slices: Sequence[Slice], step: int) -> list[Slice]:
    """Copies of so many neighbours each."""
    return [_merge(slices[start : start + step]) for start in range(0, len(slices), step)]


def _merge(slices: Sequence[Slice]) -> Slice:
    whole = Slice(len(slices[0].lanes))
    for one in slices:
        whole.add(one)
    return whole


def _seconds(groups: Sequence[Sequence[Slice]], length: int, until: int) -> Iterator[Second]:
    in_flight: dict[int, int] = {}
    for number, group in enumerate(groups):
        is_last = number == len(groups) - 1
        one = _merge(group) if len(group) > 1 else group[0]
        ticks = max(until - number * length, 1) if is_last else length
        lane = one.lanes[0]
        in_flight |= one.in_flight
        (p50_ms, p99_ms), *others = map(_percentiles, one.lanes)
        direct_p50_ms, direct_p99_ms = others[0] if others else (None, None)
        yield Second(
            at_s=rounded(number * length / TICKS_PER_S),
            length_s=rounded(ticks / TICKS_PER_S),
            requests=lane.requests,
            errors=lane.errors,
            requests_per_second=rounded(lane.answered * TICKS_PER_S / ticks),
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            in_flight=sum(in_flight.values()),
            direct_p50_ms=direct_p50_ms,
            direct_p99_ms=direct_p99_ms,
        )


def _percentiles(lane: LaneSlice) -> tuple[float | None, float | None]:
    latency = lane.latency
    if not latency.count:
        return None, None
    p50, p99 = (latency.value_at_percentile(p) / TICKS_PER_MS for p in (50, 99))
    return rounded(p50), rounded(p99)
