"""Counts of times in buckets as wide as a thousandth of what they hold: an HdrHistogram.

Layout and encoding are those of https://github.com/HdrHistogram, for 1 tick to an hour of 100 ns
ticks at 3 significant digits, so that its tools read our logs.
"""

from __future__ import annotations

import math
import struct
import zlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Final

import msgspec

HIGHEST: Final = 36_000_000_000  # an hour; what is longer counts as that
_SIGNIFICANT_DIGITS: Final = 3
_HALF_BITS: Final = 10  # each power of two has 1024 buckets, which is enough for 3 digits
_FULL: Final = 2 << _HALF_BITS
_TABLE_SHIFTS: Final = 9  # indices are looked up for values of up to 0.1 s

_COOKIE: Final = 0x1C849313
_COMPRESSED_COOKIE: Final = 0x1C849314
_ENVELOPE: Final = struct.Struct(">II")  # cookie, length of what follows
_HEADER: Final = struct.Struct(">IIIIQQd")  # cookie, length, offset, digits, lowest, highest, ratio
_LAST_BYTE_SHIFT: Final = 56  # the ninth byte of a number has all its eight bits


class Bucket(msgspec.Struct, frozen=True):
    """So many values from `value_from` to `value_to`, both included."""

    value_from: int
    value_to: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """Values as they are counted: worked out once, for every histogram that is to have them."""

    indices: Sequence[int]
    least: int
    most: int
    total: int


def indexed(values: Collection[int]) -> Indexed:
    values = list(values)  # an array makes its numbers anew each time it is read
    least, most = min(values, default=0), max(values, default=0)
    if least < 0 or most > HIGHEST:
        values = [min(max(value, 0), HIGHEST) for value in values]
        least, most = min(values), max(values)
    indices = _indices(values, most)
    return Indexed(indices=indices, least=least, most=most, total=sum(values))


def _indices(values: Sequence[int], most: int) -> list[int]:
    table = _table()
    if most < len(table):
        return list(map(table.__getitem__, values))
    return [table[value] if value < len(table) else _index(value) for value in values]


class HdrHistogram:
    __slots__ = ("_counts", "_total", "count", "max", "min")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0
        self.count = 0
        self.min = 0
        self.max = 0

    def record(self, value: int, count: int = 1) -> None:
        """A negative value counts as 0."""
        value = min(max(value, 0), HIGHEST)
        self._note(least=value, most=value, total=value * count, count=count)
        self._counts[_index(value)] += count

    def record_all(self, values: Collection[int] | Indexed) -> None:
        """As `record` of each, at a fraction of the cost."""
        many = values if isinstance(values, Indexed) else indexed(values)
        if not many.indices:
            return
        self._note(least=many.least, most=many.most, total=many.total, count=len(many.indices))
        self._counts.update(many.indices)

    def add(self, other: HdrHistogram) -> None:
        if not other.count:
            return
        self._note(least=other.min, most=other.max, total=other._total, count=other.count)
        counts = self._counts
        for index, count in other._counts.items():
            counts[index] += count

    def _note(self, *, least: int, most: int, total: int, count: int) -> None:
        self.min = min(self.min, least) if self.count else least
        self.max = max(self.max, most)
        self._total += total
        self.count += count

    @property
    def mean(self) -> float:
        return self._total / self.count if self.count else 0.0

    def value_at_percentile(self, percentile: float) -> int:
        """The highest value of the bucket it falls into, but no more than the most seen."""
        # The rounding of the division must not push a whole rank to the next one.
        rank = max(math.ceil(percentile * self.count / 100 - 1e-9), 1)
        indices = sorted(self._counts)
        ranks = list(accumulate(map(self._counts.__getitem__, indices)))
        place = bisect_left(ranks, rank)
        if place == len(indices):  # nothing was recorded
            return self.max
        value, width = _bucket(indices[place])
        return min(value + width - 1, self.max)

    def __iter__(self) -> Iterator[Bucket]:
        """The buckets that aren't empty, ascending."""
        for index, count in sorted(self._counts.items()):
            value, width = _bucket(index)
            yield Bucket(value, value + width - 1, count)

    def packed(self) -> PackedHistogram:
        return PackedHistogram(
            indices=array("H", self._counts),
            counts=array("Q", self._counts.values()),
            total=self._total,
            min=self.min,
            max=self.max,
        )

    def encode_v2(self) -> bytes:
        """The compressed payload, which logs hold in base64."""
        counts = _encode_counts(sorted(self._counts.items()))
        header = _HEADER.pack(_COOKIE, len(counts), 0, _SIGNIFICANT_DIGITS, 1, HIGHEST, 1.0)
        payload = zlib.compress(header + counts)
        return _ENVELOPE.pack(_COMPRESSED_COOKIE, len(payload)) + payload


class PackedHistogram(msgspec.Struct, frozen=True, kw_only=True):
    """One that rests: a tenth of the memory."""

    indices: array[int]
    counts: array[int]
    total: int
    min: int
    max: int

    def unpacked(self) -> HdrHistogram:
        histogram = HdrHistogram()
        histogram._counts = Counter(dict(zip(self.indices, self.counts, strict=True)))
        histogram._total = self.total
        histogram.count = sum(self.counts)
        histogram.min, histogram.max = self.min, self.max
        return histogram


def bucket_start(value: int) -> int:
    """The least value of the bucket that a value falls into."""
    return _bucket(_index(min(max(value, 0), HIGHEST)))[0]


def bucket_end(value: int) -> int:
    """The first value beyond that bucket."""
    start, width = _bucket(_index(min(max(value, 0), HIGHEST)))
    return start + width


def _index(value: int) -> int:
    shift = max(value.bit_length() - _HALF_BITS - 1, 0)
    return (shift << _HALF_BITS) + (value >> shift)


def _bucket(index: int) -> tuple[int, int]:
    """The least value of a bucket, and how many it holds."""
    shift = max((index >> _HALF_BITS) - 1, 0)
    return (index - (shift << _HALF_BITS)) << shift, 1 << shift


@cache
def _table() -> list[int]:
    """Indices by value: built in 10 ms, used from C. In an array each would be made anew."""
    table = list(range(_FULL))
    for shift in range(1, _TABLE_SHIFTS + 1):
        first = (shift + 1) << _HALF_BITS
        for index in range(first, first + (1 << _HALF_BITS)):
            table.extend([index] * (1 << shift))
    return table


# Counts are zigzag LEB128 numbers of up to nine bytes; a negative one is a run of empty buckets.


def _encode_counts(items: list[tuple[int, int]]) -> bytes:
    data = bytearray()
    expected = 0
    for index, count in items:
        if index > expected:
            _append_number(data, -(index - expected))
        _append_number(data, count)
        expected = index + 1
    return bytes(data)


def _append_number(data: bytearray, value: int) -> None:
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    for _ in range(_LAST_BYTE_SHIFT // 7):
        if rest < 0x80:
            data.append(rest)
            return
        data.append(rest & 0x7F | 0x80)
        rest >>= 7
    data.append(rest)
