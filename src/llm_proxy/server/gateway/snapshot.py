"""All that a worker counts, gathered from where it is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from llm_proxy.measurements import Circuit, Series, Snapshot, worst_circuit
from llm_proxy.server.gateway.api import Upstream
from llm_proxy.server.gateway.gateway import Gateway
from llm_proxy.server.gateway.recorder import Recorder


def take_snapshot(
    gateway: Gateway,
    upstreams: Iterable[Upstream],
    *,
    recorder: Recorder | None,
    connections: int,
    lookups: Mapping[str, int],
) -> Snapshot:
    """`connections` are those of clients, open now; `lookups` those of tokens, by outcome."""
    metrics = gateway.metrics
    apis = [upstream for upstream in upstreams if not upstream.is_control]
    counters = metrics.counters()
    counters += [Series("token_lookups", (outcome,), count) for outcome, count in lookups.items()]
    limiter = gateway.limiter
    counters += [Series("limit_refusals", why, count) for why, count in limiter.refusals.items()]
    if limiter.authority is not None:
        counters.append(Series("limit_questions", (), limiter.authority.asked))
    gauges = [
        Series("requests_running", (), gateway.running),
        Series("limit_slots", (), limiter.running),
        Series("client_connections_open", (), connections),
        Series("tunnels_open", (), metrics.tunnels),
        Series("tokens_known", (), gateway.tokens.known_count),
    ]
    if recorder is not None:
        counters.append(Series("records_dropped", (), recorder.dropped))
        gauges.append(Series("records_queued", (), recorder.queued))
    for upstream in apis:
        counters += _counters(upstream)
        gauges += _gauges(upstream)
    return Snapshot(
        counters=tuple(counters),
        gauges=tuple(gauges),
        peaks=tuple(metrics.peaks()),
        distributions=tuple(metrics.distributions()),
        circuits=tuple(_circuit(upstream) for upstream in apis),
    )


def _counters(upstream: Upstream) -> list[Series]:
    labels, pool = (upstream.name,), upstream.pool
    return [
        Series("circuit_breaker_trips", labels, upstream.trips),
        Series("upstream_connects", labels, pool.connects),
        Series("upstream_connect_failures", labels, pool.connect_failures),
        Series("upstream_retries", labels, pool.retries.count),
    ]


def _gauges(upstream: Upstream) -> list[Series]:
    labels, pool = (upstream.name,), upstream.pool
    states = Counter(breaker.state for breaker in upstream.breakers)
    circuits = [
        Series("circuit_breakers", (upstream.name, state), states[state])
        for state in ("closed", "half_open", "open")
    ]
    return [
        *circuits,
        Series("upstream_connections_open", labels, pool.open_count),
        Series("upstream_connections_idle", labels, pool.idle_count),
        Series("upstream_waiting", labels, pool.waiting_count),
    ]


def _circuit(upstream: Upstream) -> Circuit:
    troubled = [
        Circuit(upstream.name, breaker.state, breaker.reason, breaker.failed_at)
        for breaker in upstream.breakers
        if breaker.reason
    ]
    return worst_circuit(troubled) or Circuit(upstream.name, "closed", "", 0.0)
