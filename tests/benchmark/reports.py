"""Plausible reports, for the tests of everything that shows one."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import msgspec

from llm_proxy.benchmark import report as r
from llm_proxy.benchmark.report import Added, Distribution, Histogram, Report, Second, Side

COUNT = 2000
LENGTH_S = 10.0


def make_report(**changes: Any) -> Report:
    """A paired run against the throw-away server; `changes` replace whole fields."""
    fields: dict[str, Any] = {
        **fields_of(make_side(median_ms=0.52)),
        "command": "llm-proxy benchmark --concurrency 10 --token sk-…",
        "seed": 42,
        "started_at": "2026-03-01T12:00:00Z",
        "interrupted": False,
        "environment": make_environment(),
        "load": make_load(),
        "workload": make_workload(),
        "rig": make_rig(),
        "series": make_series(),
        "spread": {
            "requests_per_second": r.Spread(low=194.0, high=206.0),
            "latency_ms.mean": r.Spread(low=0.53, high=0.55),
            "latency_ms.p50": r.Spread(low=0.51, high=0.53),
            "latency_ms.p90": r.Spread(low=0.75, high=0.79),
            "latency_ms.p99": r.Spread(low=0.96, high=1.05),
        },
        "direct": make_side(median_ms=0.41, seed=2, server_timing=None),
        "added_latency_ms": make_added(0.11),
        "fidelity": r.Fidelity(verdict="equal", compared=COUNT),
        "process": make_process(),
        "checks": (
            r.Check(
                kind="error-rate",
                name="errors<=1%",
                passed=True,
                message="the error rate is 0.1 %, within 1 %",
            ),
        ),
    }
    return Report(**(fields | changes))


def make_stream_report(**changes: Any) -> Report:
    side = make_side(median_ms=310.0, streams=make_streams(), error_kinds={"cut": 2})
    fields: dict[str, Any] = {
        **fields_of(side),
        "direct": make_side(median_ms=300.0, seed=2, streams=make_streams(ttft_ms=19.5)),
        "workload": make_workload(preset="chat-stream", stream=True),
        "series": make_series(scale=600.0),
        "spread": {"requests_per_second": r.Spread(low=194.0, high=206.0)},
        "added_latency_ms": make_added(9.8),
        "added_ttft_ms": make_added(0.4),
        "added_inter_token_ms": make_added(0.002, found=False),
    }
    return make_report(**(fields | changes))


def make_side(*, median_ms: float, seed: int = 1, **changes: Any) -> Side:
    """Two errors in 2,000 requests; latencies around the median, to the right a long tail."""
    random = Random(seed)
    values = sorted(random.lognormvariate(math.log(median_ms), 0.3) for _ in range(COUNT - 2))
    fields: dict[str, Any] = {
        "requests": COUNT,
        "errors": 2,
        "error_rate": 2 / COUNT,
        "cancelled": 0,
        "duration_s": LENGTH_S,
        "requests_per_second": (COUNT - 2) / LENGTH_S,
        "latency_ms": distribution(values),
        "service_ms": distribution([value * 0.98 for value in values]),
        "first_byte_ms": distribution([value * 0.9 for value in values]),
        "statuses": {"2xx": COUNT - 2, "5xx": 2},
        "status_codes": {"200": COUNT - 2, "502": 2},
        "error_kinds": {"5xx": 2},
        "bytes_sent": COUNT * 412,
        "bytes_received": COUNT * 890,
        "streams": None,
        "server_timing": r.ServerTiming(
            answers=COUNT - 2,
            proxy_ms=distribution([value * 0.2 for value in values]),
            upstream_ms=distribution([value * 0.6 for value in values]),
            unexplained_ms=distribution([value * 0.2 for value in values]),
        ),
        "histogram": histogram(values),
        "cdf": cdf(values),
    }
    return Side(**(fields | changes))


def make_streams(*, ttft_ms: float = 20.0, **changes: Any) -> r.Streams:
    fields: dict[str, Any] = {
        "ttft_ms": make_distribution(ttft_ms),
        "second_token_ms": make_distribution(ttft_ms + 10),
        "inter_token_ms": make_distribution(10.0),
        "tokens": COUNT * 30,
        "tokens_per_second": COUNT * 30 / LENGTH_S,
        "tokens_per_second_per_stream": make_distribution(100.0),
        "stalls": 3,
        "stalled_streams": 2,
        "cut": 2,
        "broken": 0,
        "cancelled": 0,
    }
    return r.Streams(**(fields | changes))


def make_goodput(**changes: Any) -> r.Goodput:
    fields: dict[str, Any] = {
        "limits": ("latency<=50ms", "ttft<=200ms"),
        "requests": 1946,
        "share": 0.973,
        "requests_per_second": 194.6,
    }
    return r.Goodput(**(fields | changes))


def make_added(typical: float, *, found: bool = True) -> Added:
    half = abs(typical) * (0.08 if found else 3) or 0.01
    values = [typical + half * 9 * math.tan(1.4 * (i / 500 - 1)) / 5.8 for i in range(1001)]
    return Added(
        **fields_of(distribution(values)),
        typical=typical,
        ci95=(round(typical - half, 6), round(typical + half, 6)),
        p_value=0.0001 if found else 0.47,
        blocks=200,
    )


def make_series(*, length: int = 10, scale: float = 1.0, **changes: Any) -> tuple[Second, ...]:
    return tuple(
        Second(
            **{
                "at_s": float(i),
                "length_s": 1.0,
                "requests": 200 + (i * 37) % 11,
                "errors": 1 if i in (3, 7) else 0,
                "requests_per_second": 200.0 + (i * 37) % 11,
                "p50_ms": scale * (0.5 + 0.01 * ((i * 29) % 7)),
                "p99_ms": scale * (1.0 + 0.04 * ((i * 31) % 9)),
                "in_flight": 10,
                "direct_p50_ms": scale * (0.4 + 0.01 * ((i * 23) % 5)),
                "direct_p99_ms": scale * (0.8 + 0.03 * ((i * 17) % 6)),
                **changes,
            }
        )
        for i in range(length)
    )


def make_runs(count: int = 5) -> tuple[r.Run, ...]:
    return tuple(
        r.Run(
            requests=COUNT,
            errors=i % 2,
            requests_per_second=197.0 + i,
            latency_ms=make_distribution(0.5 + i / 100),
            added_typical_ms=0.1 + i / 200,
        )
        for i in range(count)
    )


def make_find_max(**changes: Any) -> r.FindMax:
    rates = [(500.0, True), (1000.0, True), (2000.0, False), (1500.0, True), (1500.0, True)]
    probes = tuple(
        r.Probe(
            rate=rate,
            requests_per_second=rate * 0.999,
            passed=passed,
            reason="" if passed else "p99 is 71 ms, over 50 ms",
            latency_ms=make_distribution(rate / 200),
            rig_bound=False,
            is_confirmation=i > 3,
        )
        for i, (rate, passed) in enumerate(rates)
    )
    fields: dict[str, Any] = {
        "slo": ("p99<=50ms",),
        "rate": 1500.0,
        "confirmed": True,
        "probes": probes,
        "note": "1,500 requests/s met the limits, and did so again when asked twice more.",
    }
    return r.FindMax(**(fields | changes))


def make_frontier(**changes: Any) -> r.Frontier:
    """Four limits: none within 1 ms, one rate that noise speaks against, one contradicted."""
    probes = (
        make_probe(100.0, p99_ms=3.0, rig_bound=True),
        make_probe(1000.0, p99_ms=4.0),
        make_probe(1000.0, p99_ms=4.5, is_confirmation=True),
        make_probe(1500.0, p99_ms=8.0),
        make_probe(2000.0, p99_ms=71.0),
        make_probe(4000.0, p99_ms=900.0, passed=False, reason="only half were answered: (-x)"),
    )
    points = (
        make_point(1.0, None, is_noisy=True, confirmed=False, note="Noise: higher kept it (9/s)."),
        make_point(5.0, 1000.0, p99_ms=4.5, is_noisy=True, note="Confirmed: 1,000/s. Noise: …"),
        make_point(10.0, 1500.0, p99_ms=8.0, note="Confirmed: 1,500/s met the limits."),
        make_point(100.0, 2000.0, p99_ms=71.0, confirmed=False, note="Contradicted: 2,000/s."),
    )
    fields: dict[str, Any] = {
        "points": points,
        "probes": probes,
        "note": "Confirmed: the rates of 2 of 4 limits, with 6 probes (40 at most).",
    }
    return r.Frontier(**(fields | changes))


def make_point(
    limit_ms: float, rate: float | None, *, p99_ms: float | None = None, **changes: Any
) -> r.FrontierPoint:
    fields: dict[str, Any] = {
        "p99_limit_ms": limit_ms,
        "rate": rate,
        "requests_per_second": rate,
        "latency_ms": None if p99_ms is None else with_p99(p99_ms),
        "confirmed": True,
        "is_noisy": False,
        "note": "",
    }
    return r.FrontierPoint(**(fields | changes))


def make_probe(rate: float, *, p99_ms: float | None = 5.0, **changes: Any) -> r.Probe:
    fields: dict[str, Any] = {
        "rate": rate,
        "requests_per_second": rate * 0.999,
        "passed": True,
        "reason": "",
        "latency_ms": None if p99_ms is None else with_p99(p99_ms),
        "rig_bound": False,
    }
    return r.Probe(**(fields | changes))


def with_p99(ms: float) -> Distribution:
    return msgspec.structs.replace(make_distribution(ms / 2), p99=ms)


def make_comparison(**changes: Any) -> r.Comparison:
    fields: dict[str, Any] = {
        "file": "old.json",
        "started_at": "2026-02-01T12:00:00Z",
        "changes": (
            r.Change(metric="rps", old=210.0, new=199.8, change=-0.0486),
            r.Change(metric="p50", old=0.5, new=0.52, change=0.04),
            r.Change(metric="p99", old=0.9, new=1.07, change=0.1889),
        ),
        "warnings": ("The CPU was another one then: Old CPU.",),
    }
    return r.Comparison(**(fields | changes))


def make_environment(**changes: Any) -> r.Environment:
    fields: dict[str, Any] = {
        "llm_proxy": "0.5.0",
        "python": "CPython 3.11.9",
        "system": "Linux 6.8",
        "machine": "x86_64",
        "cpu": "Example CPU 3000",
        "cpus": 2,
        "memory_mib": 7951,
        "load_average": (0.4, 0.3, 0.2),
        "event_loop": "uvloop 0.20.0",
    }
    return r.Environment(**(fields | changes))


def make_load(**changes: Any) -> r.LoadDescription:
    fields: dict[str, Any] = {
        "model": "closed",
        "description": "closed, 10 connections, 10 s",
        "concurrency": 10,
        "rate": None,
        "processes": 1,
        "warm_up_s": 1.0,
    }
    return r.LoadDescription(**(fields | changes))


def make_workload(**changes: Any) -> r.WorkloadDescription:
    fields: dict[str, Any] = {
        "base_url": "http://127.0.0.1:8080",
        "direct_url": "http://127.0.0.1:9090",
        "method": "POST",
        "endpoint": "/v1/chat/completions",
        "preset": "chat",
        "stream": False,
        "bodies": 1,
        "tokens": 1,
        "is_throwaway": True,
        "cancel_rate": 0.0,
    }
    return r.WorkloadDescription(**(fields | changes))


def make_rig(**changes: Any) -> r.RigVerdict:
    fields: dict[str, Any] = {
        "verdict": "ok",
        "reasons": (),
        "processes": 1,
        "cpu_share": 0.31,
        "loop_lag_p50_ms": 0.02,
        "loop_lag_p99_ms": 0.2,
        "loop_lag_max_ms": 1.4,
        "late_ms": None,
        "unsent": 0,
        "reconnects": 0,
    }
    return r.RigVerdict(**(fields | changes))


def make_process(**changes: Any) -> r.ProcessUsage:
    fields: dict[str, Any] = {
        "pids": (4711, 4712),
        "cpu_s": 0.42,
        "cpu_us_per_request": 210.0,
        "memory_before_mib": 62.1,
        "memory_peak_mib": 71.5,
        "memory_after_mib": 70.2,
    }
    return r.ProcessUsage(**(fields | changes))


def make_distribution(median: float, *, seed: int = 3) -> Distribution:
    random = Random(seed)
    return distribution(sorted(random.lognormvariate(math.log(median), 0.3) for _ in range(999)))


def distribution(values: list[float]) -> Distribution:
    """Of sorted values."""

    def at(share: float) -> float:
        return rounded(values[math.ceil(share * len(values)) - 1])

    return Distribution(
        count=len(values),
        mean=rounded(math.fsum(values) / len(values)),
        min=rounded(values[0]),
        p50=at(0.5),
        p75=at(0.75),
        p90=at(0.9),
        p95=at(0.95),
        p99=at(0.99),
        p99_9=at(0.999),
        max=rounded(values[-1]),
    )


def histogram(values: list[float], bins: int = 40) -> Histogram:
    low, high = math.log(values[0]), math.log(values[-1])
    edges = [math.exp(low + (high - low) * i / bins) for i in range(bins + 1)]
    counts = [0] * bins
    for value in values:
        counts[min(int((math.log(value) - low) / (high - low) * bins), bins - 1)] += 1
    return Histogram(edges_ms=tuple(map(rounded, edges)), counts=tuple(counts))


def cdf(values: list[float], points: int = 200) -> tuple[tuple[float, float], ...]:
    ranks = sorted({max(1, round(i / points * len(values))) for i in range(1, points + 1)})
    return tuple((rounded(values[rank - 1]), rounded(rank / len(values))) for rank in ranks)


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def fields_of(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}
