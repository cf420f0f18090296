"""`--goodput latency=50ms,ttft=200ms`: limits that each single request must meet to count."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import Final

import msgspec

from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.metric import Metric
from llm_proxy.benchmark.precision import rounded
from llm_proxy.benchmark.report import Goodput
from llm_proxy.benchmark.samples import NONE, TICKS_PER_MS
from llm_proxy.benchmark.thresholds import parse_ms
from llm_proxy.errors import WrongUsage

_COLUMNS: Final = {
    "latency": "",  # late + service: no column has it
    "service": "service",
    "first_byte": "first_byte",
    "ttft": "first_token",
    "second_token": "second_token",
    "inter_token": "gap",
}
_OF_SECOND_TOKENS: Final = ("second_token", "inter_token")
OF_STREAMS: Final = frozenset(("ttft", *_OF_SECOND_TOKENS))
_SHARE_STEPS: Final = 1_000_000
_FRACTION_OF_TICK: Final = 1e-3


class GoodputLimit(msgspec.Struct, frozen=True, kw_only=True):
    figure: str  # one of those that a request has by itself
    limit_ms: float

    @property
    def name(self) -> str:
        """`ttft<=200ms`."""
        shown = Metric(self.figure).show(self.limit_ms)
        return f"{self.figure}<={shown.replace(' ', '').replace(',', '')}"

    @property
    def most(self) -> int:
        """In ticks; 0.3 ms are 2999.9999999999995 of them."""
        return int(self.limit_ms * TICKS_PER_MS + _FRACTION_OF_TICK)


def parse_goodput(text: str) -> tuple[GoodputLimit, ...]:
    """`latency=50ms,ttft=200ms`. Raises WrongUsage."""
    limits: dict[str, GoodputLimit] = {}
    for part in text.split(","):
        try:
            limit = _parse_limit(part)
            if limit.figure in limits:
                raise ValueError(f"{limit.figure} has a limit already")
            limits[limit.figure] = limit
        except ValueError as exc:
            raise WrongUsage(f"--goodput: {part.strip()[:60]!r}: {exc}") from exc
    return tuple(limits.values())


def _parse_limit(text: str) -> GoodputLimit:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("a limit is written FIGURE=TIME, like latency=50ms")
    figure = name.strip().lower()
    if figure not in _COLUMNS:
        raise ValueError(
            f"{name.strip()[:40]!r} isn't a time that a request has by itself; there are "
            f"{', '.join(_COLUMNS)}"
        )
    limit_ms = parse_ms(value)
    if not limit_ms:
        raise ValueError("nothing takes no time at all; give more than 0ms")
    return GoodputLimit(figure=figure, limit_ms=limit_ms)


class GoodputTally:
    """Exact: it compares the times themselves, not what a histogram makes of them."""

    def __init__(self, limits: Sequence[GoodputLimit]) -> None:
        self._limits = tuple(limits)
        self._good = 0

    def add(self, rows: LaneRows) -> None:
        verdicts = [met for limit in self._limits if (met := _verdicts(rows, limit)) is not None]
        if not verdicts:
            self._good += len(rows.answered_latency)
        else:
            self._good += _all_of(verdicts).count(1)

    def goodput(self, *, eligible: int, rate_s: float) -> Goodput | None:
        """`eligible` requests were to be good; None unless limits were given."""
        if not self._limits:
            return None
        return Goodput(
            limits=tuple(limit.name for limit in self._limits),
            requests=self._good,
            share=_share(self._good, eligible),
            requests_per_second=rounded(self._good / rate_s) if rate_s else 0.0,
        )


def _verdicts(rows: LaneRows, limit: GoodputLimit) -> bytes | None:
    """A 1 for each answered request that met it; None: all did."""
    column = _COLUMNS[limit.figure]
    values = rows.answered(column) if column else rows.answered_latency
    if not values:
        return None
    is_whole = min(values) > NONE
    if is_whole and max(values) <= limit.most:
        return None
    met = bytes(map(limit.most.__ge__, values))
    if is_whole:
        return met
    # What a request doesn't have misses its limit; but where there is no second token, none is late
    may_lack = rows.answered("first_token") if limit.figure in _OF_SECOND_TOKENS else values
    return bytes(
        is_met and (value > NONE or other > NONE)
        for is_met, value, other in zip(met, values, may_lack, strict=True)
    )


def _all_of(verdicts: Sequence[bytes]) -> bytes:
    """Byte by byte, in one calculation with numbers as long as the columns."""
    if len(verdicts) == 1:
        return verdicts[0]
    met = reduce(and_, (int.from_bytes(one, "big") for one in verdicts))
    return met.to_bytes(len(verdicts[0]), "big")


def _share(good: int, eligible: int) -> float:
    """Rounded down, so that 1 means each of them."""
    return good * _SHARE_STEPS // eligible / _SHARE_STEPS if eligible else 0.0
