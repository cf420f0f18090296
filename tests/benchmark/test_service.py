from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.benchmark import find_max, frontier
from llm_proxy.benchmark.service import Service
from llm_proxy.benchmark.thresholds import parse_slo
from tests.benchmark.reports import make_probe


def service(**options: Any) -> Service:
    slo = parse_slo("p99=50ms,rps=5")
    return Service(**{"thresholds": slo, "max_error_rate": 0.01, "first_rate": 100.0, **options})


def test_one_rate_is_searched_or_one_for_each_limit() -> None:
    one, several = service(), service(p99_limits_ms=(1.0, 10.0))
    assert (one.most_probes, several.most_probes) == (find_max.MOST_PROBES, frontier.MOST_PROBES)
    assert one.slo == ["p99<=50ms"]
    assert service(thresholds=parse_slo("rps=5")).slo == ["errors<=1%"]
    probe = make_probe(100.0, p99_ms=5.0)
    assert [keeps(probe) for keeps in one.limits] == [True]
    assert [keeps(probe) for keeps in several.limits] == [False, True]


@pytest.mark.parametrize(
    ("limits_ms", "title"), [((), ""), ((0.5, 1500.0), "frontier: p99 <= 0.5 ms, ")]
)
def test_probe_is_called_after_its_limit(limits_ms: tuple[float, ...], title: str) -> None:
    assert service(p99_limits_ms=limits_ms).title(0) == title
