"""What one worker counts. Everything is a plain number that only its loop touches.

Labels come from bounded sets: names of apis, statuses, codes of errors. Never a path, a method,
a token or a project.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

from llm_proxy.measurements import DURATION_BOUNDS, LAG_BOUNDS, Distribution, Series

MAX_UNCOUNTED: Final = 256  # exchanges; counting them takes 0.1 ms
PEAK_WINDOW_S: Final = 60.0  # the highest lag of the last one to two of these is told
UPSTREAM_FAILURES: Final = frozenset(
    ("upstream_unreachable", "upstream_broken", "upstream_timeout")
)

# One exchange: api, status, error code; seconds in all, to the first byte of the answer's body,
# and of the upstream, 0.0 where there were none; bytes of both bodies; whether it was truncated.
Ended = tuple[str, int, str, float, float, float, int, int, bool]
_api_of: Final = itemgetter(0)


class Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, values: Iterable[float]) -> None:
        ordered = sorted(values)
        before = 0
        for place, bound in enumerate(self.bounds):
            up_to = bisect_right(ordered, bound)
            self.counts[place] += up_to - before
            before = up_to
        self.counts[-1] += len(ordered) - before
        self.total += sum(ordered)

    def measure(self, name: str, *labels: str) -> Distribution:
        return Distribution(name, labels, self.bounds, tuple(self.counts), self.total)


class ApiMetrics:
    """Of one api; of requests that never got to one when its name is empty."""

    __slots__ = (
        "durations",
        "first_bytes",
        "outcomes",
        "request_bytes",
        "response_bytes",
        "truncated",
        "upstream_times",
    )

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[int, str]] = Counter()  # status and code of the error
        self.durations = Histogram(DURATION_BOUNDS)
        self.first_bytes = Histogram(DURATION_BOUNDS)
        self.upstream_times = Histogram(DURATION_BOUNDS)
        self.request_bytes = 0
        self.response_bytes = 0
        self.truncated = 0

    def add(self, ended: Iterable[Ended]) -> None:
        _, statuses, codes, durations, first_bytes, upstream_times, sent, received, truncated = zip(
            *ended, strict=True
        )
        self.outcomes.update(zip(statuses, codes, strict=True))
        self.durations.add(durations)
        self.first_bytes.add(filter(None, first_bytes))
        self.upstream_times.add(filter(None, upstream_times))
        self.request_bytes += sum(sent)
        self.response_bytes += sum(received)
        self.truncated += sum(truncated)

    def counters(self, api: str) -> list[Series]:
        requests: dict[str, int] = {}
        errors: dict[str, int] = {}
        failures: dict[str, int] = {}
        for (status, code), count in self.outcomes.items():
            _add(requests, _status_label(status), count)
            if code:
                _add(errors, code, count)
            if code in UPSTREAM_FAILURES:
                _add(failures, code, count)
            elif status >= 500 and (not code or code == "client_closed"):
                _add(failures, f"status_{_status_label(status)}", count)
        counters = [Series("requests", (api, label), n) for label, n in requests.items()]
        counters += [Series("errors", (api, code), n) for code, n in errors.items()]
        counters += [Series("upstream_errors", (api, code), n) for code, n in failures.items()]
        return [
            *counters,
            Series("request_bytes", (api,), self.request_bytes),
            Series("response_bytes", (api,), self.response_bytes),
            Series("truncated_responses", (api,), self.truncated),
        ]

    def distributions(self, api: str) -> list[Distribution]:
        return [
            self.durations.measure("request_duration_seconds", api),
            self.first_bytes.measure("first_byte_seconds", api),
            self.upstream_times.measure("upstream_seconds", api),
        ]


class Metrics:
    __slots__ = (
        "_apis",
        "_lags",
        "_peak",
        "_peak_before",
        "_peak_since",
        "_uncounted",
        "connected",
        "tunnelled",
        "tunnels",
    )

    def __init__(self, apis: Sequence[str] = ()) -> None:
        """`apis` are those that are told of before their first request."""
        self._apis = {name: ApiMetrics() for name in apis}
        self._uncounted: list[Ended] = []
        self._lags = Histogram(LAG_BOUNDS)
        self._peak = self._peak_before = self._peak_since = 0.0
        self.connected = 0  # connections of clients so far
        self.tunnels = 0  # open ones
        self.tunnelled = 0  # those opened so far

    def ended(self, exchange: Ended) -> None:
        """Counted later, with others: that takes half the time."""
        self._uncounted.append(exchange)
        if len(self._uncounted) >= MAX_UNCOUNTED:
            self._count()

    def _count(self) -> None:
        ended, self._uncounted = self._uncounted, []
        for api, exchanges in groupby(sorted(ended, key=_api_of), key=_api_of):
            self._apis.setdefault(api, ApiMetrics()).add(exchanges)

    def lagged(self, lag_s: float, now: float) -> None:
        """A tick of the loop came this late."""
        self._lags.add((lag_s,))
        if now - self._peak_since >= PEAK_WINDOW_S:
            self._peak_since, self._peak_before, self._peak = now, self._peak, 0.0
        self._peak = max(self._peak, lag_s)

    def counters(self) -> list[Series]:
        self._count()
        counters = [Series("client_connections", (), self.connected)]
        counters.append(Series("tunnels", (), self.tunnelled))
        for api, of_api in self._apis.items():
            counters += of_api.counters(api)
        return counters

    def distributions(self) -> list[Distribution]:
        self._count()
        distributions = [self._lags.measure("event_loop_lag_seconds")]
        for api, of_api in self._apis.items():
            distributions += of_api.distributions(api)
        return distributions

    def peaks(self) -> list[Series]:
        return [Series("event_loop_lag_max_seconds", (), max(self._peak, self._peak_before))]


def _add(counts: dict[str, int], label: str, count: int) -> None:
    counts[label] = counts.get(label, 0) + count


def _status_label(status: int) -> str:
    """Upstreams may answer with any three digits."""
    if status == 0:
        return "none"  # the client had gone before there was an answer
    return str(status) if 100 <= status <= 599 else "other"
