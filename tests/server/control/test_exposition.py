from __future__ import annotations

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from llm_proxy.measurements import Distribution, Series, Snapshot, Totals
from llm_proxy.server.control.exposition import COUNTERS, GAUGES, HISTOGRAMS, render


def rendered(*snapshots: Snapshot) -> dict[str, Metric]:
    totals = Totals()
    for snapshot in snapshots:
        totals.add(snapshot)
    text = render(totals).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(family: Metric) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels.values()): s.value for s in family.samples}


def test_every_family_is_there_with_its_help_and_type() -> None:
    families = rendered()
    for names, kind in ((COUNTERS, "counter"), (GAUGES, "gauge"), (HISTOGRAMS, "histogram")):
        for name in names:
            family = families[f"llm_proxy_{name}"]
            assert family.type == kind
            assert family.documentation


def test_counters_and_gauges_carry_their_labels() -> None:
    one = Snapshot(
        counters=(Series("requests", ("openai", "200"), 3), Series("records_dropped", (), 1)),
        gauges=(Series("circuit_breakers", ("openai", "open"), 2),),
    )
    families = rendered(one, one)
    (requests,) = families["llm_proxy_requests"].samples
    assert (requests.name, requests.value) == ("llm_proxy_requests_total", 6)
    assert requests.labels == {"api": "openai", "status": "200"}
    assert samples(families["llm_proxy_records_dropped"]) == {
        ("llm_proxy_records_dropped_total",): 2
    }
    (circuits,) = families["llm_proxy_circuit_breakers"].samples
    assert (circuits.labels, circuits.value) == ({"api": "openai", "state": "open"}, 4)


def test_buckets_are_cumulative() -> None:
    one = Distribution("upstream_seconds", ("openai",), (0.1, 2.5), (4, 2, 1), 12.5)
    families = rendered(Snapshot(distributions=(one,)))
    assert samples(families["llm_proxy_upstream_seconds"]) == {
        ("llm_proxy_upstream_seconds_bucket", "openai", "0.1"): 4,
        ("llm_proxy_upstream_seconds_bucket", "openai", "2.5"): 6,
        ("llm_proxy_upstream_seconds_bucket", "openai", "+Inf"): 7,
        ("llm_proxy_upstream_seconds_count", "openai"): 7,
        ("llm_proxy_upstream_seconds_sum", "openai"): 12.5,
    }


def test_names_are_in_base_units() -> None:
    names = [*COUNTERS, *GAUGES, *HISTOGRAMS]
    assert len(names) == len(set(names))
    for word in ("ms", "millis", "minutes", "kib", "kb"):
        assert not any(word in name.split("_") for name in names)
    assert all(name.endswith("_seconds") for name in HISTOGRAMS)
