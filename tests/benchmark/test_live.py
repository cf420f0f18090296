from __future__ import annotations

from llm_proxy.benchmark.live import Live


def test_a_run_without_a_baseline_or_streams_needs_no_more() -> None:
    live = Live(elapsed_s=1, requests=0, errors=0, rate=0, p50_ms=None, p99_ms=None, in_flight=0)
    assert (live.direct_p50_ms, live.ttft_p50_ms, live.rates) == (None, None, ())
