"""What is counted of one lane over the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress
from operator import sub
from typing import Final, Literal

from llm_proxy.benchmark.distributions import bins, cdf, distribution
from llm_proxy.benchmark.goodput import GoodputLimit, GoodputTally
from llm_proxy.benchmark.hdr_histogram import HdrHistogram
from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.precision import rounded
from llm_proxy.benchmark.report import ServerTiming, Side, Streams
from llm_proxy.benchmark.samples import (
    BROKEN_STREAM,
    CANCELLED,
    CUT,
    OK,
    OUTCOMES,
    TICKS_PER_S,
    TIMEOUT,
    UNSENT,
)

_PER_TOKEN_RATE: Final = 1000  # rates are counted as whole thousandths of a token a second


class SideTally:
    def __init__(
        self,
        *,
        is_stream: bool,
        planned_s: float | None = None,
        goodput: Sequence[GoodputLimit] = (),
    ) -> None:
        """`planned_s` is how long the load lasts, where that was decided before."""
        self._is_stream = is_stream
        self._planned_s = planned_s
        self._in_time = 0  # answered before the planned end
        self._outcomes: Counter[int] = Counter()
        self._statuses: Counter[int] = Counter()
        self._sent = self._received = 0
        self._on_time = HdrHistogram()  # service where it is the latency, too
        self._latency = HdrHistogram()  # of the others
        self._service = HdrHistogram()  # …
        self._first_byte = HdrHistogram()
        self._goodput = GoodputTally(goodput)
        self._stream = _StreamTally()
        self._timing = _TimingTally("first byte" if is_stream else "service")

    def add(self, rows: LaneRows) -> None:
        self._outcomes.update(rows.outcomes())
        if self._planned_s is not None:
            self._in_time += rows.answered_until(int(self._planned_s * TICKS_PER_S))
        self._statuses.update(rows.column("status"))
        self._sent += sum(rows.column("sent"))
        self._received += sum(rows.column("received"))
        if rows.is_on_time:
            self._on_time.record_all(rows.indexed_latency)
        else:
            self._latency.record_all(rows.indexed_latency)
            self._service.record_all(rows.answered("service"))
        self._first_byte.record_all(rows.measured("first_byte"))
        self._goodput.add(rows)
        self._stream.add(rows)
        self._timing.add(rows)

    def add_gaps(self, gaps: Sequence[int]) -> None:
        self._stream.inter_token.record_all(gaps)

    def latency(self) -> HdrHistogram:
        return _sum(self._on_time, self._latency)

    def service(self) -> HdrHistogram:
        return _sum(self._on_time, self._service)

    def hang_ups(self) -> int:
        return self._outcomes[CANCELLED] + self._outcomes[TIMEOUT]

    def rate_s(self, duration_s: float) -> float:
        """What rates are counted over. One answer that is waited for long after the end must not
        dilute them, nor may the last round of slow ones be lost: whichever gives more."""
        planned_s = self._planned_s
        if planned_s is None or duration_s <= planned_s or not self._in_time:
            return duration_s
        return min(duration_s, planned_s * self._outcomes[OK] / self._in_time)

    def side(self, duration_s: float, *, unsent: int = 0) -> Side:
        """`unsent` are arrivals that have no row."""
        outcomes = self._outcomes + Counter({UNSENT: unsent})
        requests, cancelled = outcomes.total(), outcomes[CANCELLED]
        errors = requests - cancelled - outcomes[OK]
        latency, rate_s = self.latency(), self.rate_s(duration_s)
        return Side(
            requests=requests,
            errors=errors,
            error_rate=rounded(errors / requests) if requests else 0.0,
            cancelled=cancelled,
            duration_s=rounded(duration_s),
            requests_per_second=rounded(outcomes[OK] / rate_s) if rate_s else 0.0,
            latency_ms=distribution(latency),
            service_ms=distribution(self.service()),
            first_byte_ms=distribution(self._first_byte),
            statuses=self._status_classes(),
            status_codes={str(code): n for code, n in sorted(self._statuses.items()) if code},
            error_kinds={
                OUTCOMES[outcome]: count
                for outcome, count in sorted(outcomes.items())
                if outcome not in (OK, CANCELLED) and count
            },
            bytes_sent=self._sent,
            bytes_received=self._received,
            streams=self._streams(rate_s),
            server_timing=self._timing.server_timing(),
            histogram=bins(latency),
            cdf=cdf(latency),
            goodput=self._goodput.goodput(eligible=requests - cancelled, rate_s=rate_s),
        )

    def _status_classes(self) -> dict[str, int]:
        classes: Counter[str] = Counter()
        for code, count in sorted(self._statuses.items()):
            if code:
                classes[f"{code // 100}xx"] += count
        return dict(classes)

    def _streams(self, rate_s: float) -> Streams | None:
        if not self._is_stream and not self._stream.tokens:
            return None
        return self._stream.streams(
            rate_s,
            cut=self._outcomes[CUT],
            broken=self._outcomes[BROKEN_STREAM],
            cancelled=self._outcomes[CANCELLED],
        )


def _sum(left: HdrHistogram, right: HdrHistogram) -> HdrHistogram:
    both = HdrHistogram()
    both.add(left)
    both.add(right)
    return both


class _StreamTally:
    def __init__(self) -> None:
        self.tokens = 0
        self.inter_token = HdrHistogram()
        self._ttft = HdrHistogram()
        self._second = HdrHistogram()
        self._rates = HdrHistogram()
        self._stalls = self._stalled = 0

    def add(self, rows: LaneRows) -> None:
        tokens = sum(rows.column("tokens"))
        if not tokens:
            return
        self.tokens += tokens
        stalls = rows.column("stalls")
        self._stalls += sum(stalls)
        self._stalled += sum(map(bool, stalls))
        self._ttft.record_all(rows.measured("first_token"))
        self._second.record_all(rows.measured("second_token"))
        self._rates.record_all(_rates(rows))

    def streams(self, rate_s: float, *, cut: int, broken: int, cancelled: int) -> Streams:
        return Streams(
            ttft_ms=distribution(self._ttft),
            second_token_ms=distribution(self._second),
            inter_token_ms=distribution(self.inter_token),
            tokens=self.tokens,
            tokens_per_second=rounded(self.tokens / rate_s) if rate_s else 0.0,
            tokens_per_second_per_stream=distribution(self._rates, ticks_per_unit=_PER_TOKEN_RATE),
            stalls=self._stalls,
            stalled_streams=self._stalled,
            cut=cut,
            broken=broken,
            cancelled=cancelled,
        )


def _rates(rows: LaneRows) -> list[int]:
    """Of the streams that said more than one token, in more than one piece."""
    scale = TICKS_PER_S * _PER_TOKEN_RATE
    columns = (rows.answered(name) for name in ("tokens", "first_token", "last_token"))
    return [
        (tokens - 1) * scale // (last - first)
        for tokens, first, last in zip(*columns, strict=True)
        if tokens > 1 and 0 <= first < last
    ]


class _TimingTally:
    """Streams go on long after the head that has the timing: of them the first byte counts."""

    def __init__(self, seen: Literal["service", "first byte"]) -> None:
        self._seen_as = seen
        self._seen = HdrHistogram()
        self._excessive = 0
        self._proxy = HdrHistogram()
        self._upstream = HdrHistogram()
        self._unexplained = HdrHistogram()

    def add(self, rows: LaneRows) -> None:
        proxy = rows.answered("proxy")
        if not proxy or max(proxy) < 0:
            return
        upstream = rows.answered("upstream")
        seen = rows.answered("service" if self._seen_as == "service" else "first_byte")
        is_latency = rows.is_on_time and self._seen_as == "service"
        if min(proxy) < 0:
            is_latency = False
            has_timing = [inside >= 0 for inside in proxy]
            proxy, upstream, seen = (
                list(compress(column, has_timing)) for column in (proxy, upstream, seen)
            )
        self._proxy.record_all(proxy)
        self._upstream.record_all(upstream)
        unexplained = list(map(sub, map(sub, seen, proxy), upstream))
        if min(unexplained) < 0:  # both are rounded
            self._excessive += sum(ticks < 0 for ticks in unexplained)
            unexplained = [ticks if ticks > 0 else 0 for ticks in unexplained]
        self._unexplained.record_all(unexplained)
        self._seen.record_all(rows.indexed_latency if is_latency else seen)

    def server_timing(self) -> ServerTiming | None:
        proxy, upstream = distribution(self._proxy), distribution(self._upstream)
        unexplained = distribution(self._unexplained)
        if proxy is None or upstream is None or unexplained is None:
            return None
        return ServerTiming(
            answers=proxy.count,
            proxy_ms=proxy,
            upstream_ms=upstream,
            unexplained_ms=unexplained,
            seen=self._seen_as,
            seen_ms=distribution(self._seen),
            excessive=self._excessive,
        )
