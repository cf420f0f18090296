"""Totals as the text format 0.0.4 of Prometheus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final, TypeVar

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from llm_proxy.measurements import Distribution, Key, Totals

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "llm_proxy_"
T = TypeVar("T")

# By name, as the workers send it: labels, and what it counts.
COUNTERS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "requests": (
        ("api", "status"),
        "Requests by the status of their answer; none: the client left before there was one.",
    ),
    "errors": (
        ("api", "code"),
        "Requests that did not end well, by error code: refusals, failures of the upstream, and "
        "client_closed.",
    ),
    "upstream_errors": (
        ("api", "code"),
        "Requests that the upstream failed: no connection, a broken answer, none in time, or a "
        "status from 500.",
    ),
    "truncated_responses": (("api",), "Answers that were cut off after they had begun."),
    "request_bytes": (("api",), "Bytes of request bodies received from clients."),
    "response_bytes": (("api",), "Bytes of response bodies sent to clients."),
    "circuit_breaker_trips": (("api",), "How often a circuit breaker opened."),
    "upstream_connects": (("api",), "Connections opened to the upstream."),
    "upstream_connect_failures": (("api",), "Connections to the upstream that failed to open."),
    "upstream_retries": (("api",), "Further tries, of connecting or of whole requests."),
    "client_connections": ((), "Connections accepted from clients."),
    "tunnels": ((), "Upgraded connections (WebSocket) so far."),
    "limit_refusals": (
        ("limit", "kind"),
        "Requests refused by a limit: total, client_ip, project or token; of its rate, of its "
        "concurrency, or because the authority could not be asked (unavailable).",
    ),
    "redis_calls": (
        ("outcome",),
        "What was asked of Redis for limits: answered, failed, or skipped while it is left alone.",
    ),
    "limit_questions": ((), "Requests for which a worker asked the authority for permits."),
    "token_lookups": (("outcome",), "Tokens looked up in the store, because no worker knew them."),
    "records_dropped": ((), "Exchange records lost on their way to the record writer."),
    "records_lost": ((), "Exchange records that the record writer got and could not write."),
    "process_cpu_seconds": (("process",), "CPU time, those workers included that have ended."),
}
GAUGES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "requests_running": ((), "Requests admitted to an api and not ended."),
    "redis_up": ((), "1 while Redis can be used, for limits of scope fleet."),
    "limit_slots": ((), "Running requests that count against a limit."),
    "limit_slots_leased": (
        (),
        "Slots of concurrency limits that several workers share, held by workers now.",
    ),
    "client_connections_open": ((), "Connections of clients, idle ones included."),
    "tunnels_open": ((), "Upgraded connections (WebSocket)."),
    "tokens_known": ((), "Tokens in the memory of the workers."),
    "records_queued": ((), "Exchange records waiting for the record writer."),
    "circuit_breakers": (
        ("api", "state"),
        "Circuit breakers, one for each upstream key and worker, by state.",
    ),
    "upstream_connections_open": (("api",), "Connections to the upstream, idle ones included."),
    "upstream_connections_idle": (("api",), "Connections to the upstream that wait for use."),
    "upstream_waiting": (
        ("api",),
        "Requests without a connection yet: one is being opened, or max_conns are in use.",
    ),
    "event_loop_lag_max_seconds": (
        (),
        "The longest that any worker's loop was held up in the last one to two minutes.",
    ),
    "process_resident_memory_bytes": (("process",), "Resident memory, summed over processes."),
    "process_open_fds": (("process",), "Open file descriptors, summed over processes."),
    "workers": ((), "Gateway workers that are ready."),
    "uptime_seconds": ((), "Since the start of the server."),
}
HISTOGRAMS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "request_duration_seconds": (
        ("api",),
        "From the head of a request to the last byte of its answer.",
    ),
    "first_byte_seconds": (
        ("api",),
        "From the head of a request to the first byte of its answer's body.",
    ),
    "upstream_seconds": (
        ("api",),
        "From sending a request to the head of the upstream's answer, connecting included.",
    ),
    "event_loop_lag_seconds": ((), "How late the workers' loops were, looked at every 0.25 s."),
}


def render(totals: Totals) -> bytes:
    return generate_latest(_Page(totals))


class _Page(Collector):
    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        counters = _by_name(self._totals.counters)
        for name, (labels, text) in COUNTERS.items():
            counter = CounterMetricFamily(_PREFIX + name, text, labels=labels)
            for values, value in counters[name]:
                counter.add_metric(values, value)
            yield counter
        gauges = _by_name(self._totals.gauges)
        for name, (labels, text) in GAUGES.items():
            gauge = GaugeMetricFamily(_PREFIX + name, text, labels=labels)
            for values, value in gauges[name]:
                gauge.add_metric(values, value)
            yield gauge
        distributions = _by_name(self._totals.distributions)
        for name, (labels, text) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(_PREFIX + name, text, labels=labels)
            for values, distribution in distributions[name]:
                histogram.add_metric(values, _buckets(distribution), distribution.total)
            yield histogram


def _by_name(found: Mapping[Key, T]) -> dict[str, list[tuple[tuple[str, ...], T]]]:
    grouped: dict[str, list[tuple[tuple[str, ...], T]]] = defaultdict(list)
    for (name, values), value in sorted(found.items(), key=lambda item: item[0]):
        grouped[name].append((values, value))
    return grouped


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    """Cumulative, as the format wants them."""
    bounds = [*map(str, distribution.bounds), "+Inf"]
    return list(zip(bounds, accumulate(distribution.counts), strict=True))
