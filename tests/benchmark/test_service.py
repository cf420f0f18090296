from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.benchmark import find_max, frontier
from llm_proxy.benchmark.collector import Collector
from llm_proxy.benchmark.plan import Open, Stage
from llm_proxy.benchmark.service import Service
from llm_proxy.benchmark.thresholds import parse_slo
from tests.benchmark.framing import plan_of
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


def load(arrivals: str = "constant", duration_s: float = 5.0) -> Open:
    stages = (Stage(duration_s=duration_s, rate=0.1),)
    return Open(stages=stages, start_rate=0.1, arrivals=arrivals)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "rate"), [(load(), 0.2), (load("poisson"), 1.0), (load(duration_s=40.0), 0.1)]
)
def test_no_rate_is_tried_at_which_a_probe_is_likely_to_be_empty(one: Open, rate: float) -> None:
    assert service().lowest_rate(one) == rate


def test_probe_without_a_request_shows_nothing() -> None:
    anything = service(thresholds=(), max_error_rate=1.0)
    plan = plan_of(load("poisson"))
    probe = anything.judge(plan, Collector(plan).results([]))
    assert not probe.passed
    assert probe.reason.startswith("no request was due")
