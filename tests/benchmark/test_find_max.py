from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.find_max import MOST_PROBES, find_max, meets_all
from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.rate_search import PRECISION, RateSearch
from llm_proxy.benchmark.report import FindMax, Probe

pytestmark = pytest.mark.anyio


async def search(
    passes: Callable[[float], bool],
    *,
    start: float = 100,
    is_rig_bound: Callable[[float], bool] = lambda rate: False,
) -> FindMax:
    async def probe(rate: float, limit: int) -> Probe:
        passed = passes(rate)
        return Probe(
            rate=rate,
            requests_per_second=rate,
            passed=passed,
            reason="" if passed else "p99 is over",
            latency_ms=None,
            rig_bound=is_rig_bound(rate),
        )

    rates = RateSearch(probe, [meets_all], most_probes=MOST_PROBES)
    await rates.run(start)
    return find_max(rates, ["p99<=50ms"])


@pytest.mark.parametrize("capacity", [100.0, 130.0, 777.0, 1600.0, 25_000.0])
async def test_highest_rate_is_found_from_below(capacity: float) -> None:
    found = await search(lambda rate: rate <= capacity)
    assert found.confirmed
    assert found.rate is not None
    assert found.rate <= capacity <= found.rate * (1 + PRECISION)
    assert "e+" not in found.note
    assert found.note == f"Confirmed: {format_rate(found.rate)}/s met the limits in 2 more windows."


async def test_highest_rate_is_found_from_above() -> None:
    found = await search(lambda rate: rate <= 7, start=100)
    assert found.rate is not None
    assert found.rate <= 7 <= found.rate * (1 + PRECISION)
    assert found.confirmed


async def test_every_probe_is_kept_in_order() -> None:
    found = await search(lambda rate: rate < 300)
    tried = [(probe.rate, probe.passed) for probe in found.probes]
    assert tried[:3] == [(100, True), (200, True), (400, False)]
    assert tried[3] == (300, False)
    assert [probe.is_confirmation for probe in found.probes[-2:]] == [True, True]
    assert not any(probe.is_confirmation for probe in found.probes[:-2])
    assert {probe.rate for probe in found.probes[-2:]} == {found.rate}


async def test_windows_that_disagree_are_reported() -> None:
    seen: list[float] = []

    def passes(rate: float) -> bool:
        seen.append(rate)
        return rate <= 300 and seen.count(rate) < 3  # the second confirmation fails

    found = await search(passes)
    assert found.rate is not None
    assert not found.confirmed
    assert "Contradicted" in found.note
    assert "missed them in 1 of 2" in found.note


async def test_rate_that_no_window_confirms_is_given_up_for_a_lower_one() -> None:
    tried: list[float] = []

    def passes(rate: float) -> bool:  # from 780 on once each, and never again
        tried.append(rate)
        return rate < 780 or (rate < 830 and tried.count(rate) == 1)

    found = await search(passes)
    assert found.rate is not None
    assert 780 * (1 - 2 * PRECISION) < found.rate < 780
    assert found.confirmed
    assert any(probe.is_confirmation and not probe.passed for probe in found.probes)


async def test_nothing_that_passes_is_no_rate() -> None:
    found = await search(lambda rate: False)
    assert found.rate is None
    assert not found.confirmed
    assert len(found.probes) <= MOST_PROBES


async def test_rig_that_is_the_limit_ends_the_search() -> None:
    found = await search(lambda rate: rate < 900, is_rig_bound=lambda rate: rate > 300)
    assert found.rate == 800
    assert not found.confirmed
    assert "Bound by the rig: at 1,600/s" in found.note
    assert [probe.rate for probe in found.probes[-2:]] == [1600, 1600]


async def test_rig_that_stumbled_once_is_tried_again() -> None:
    tried: list[float] = []

    def stumbles(rate: float) -> bool:
        return rate == 200 and tried.count(200) == 1

    def passes(rate: float) -> bool:
        tried.append(rate)
        return rate <= 300 and not stumbles(rate)

    found = await search(passes, is_rig_bound=stumbles)
    assert found.confirmed
    assert [probe.rate for probe in found.probes[:3]] == [100, 200, 200]


async def test_search_without_a_limit_ends() -> None:
    found = await search(lambda rate: True, start=0.5)
    assert len(found.probes) == MOST_PROBES
    assert found.rate == found.probes[-1].rate
    assert not found.confirmed


@given(st.floats(0.2, 1e6), st.floats(0.2, 1e5))
async def test_search_is_bounded_wherever_it_begins(capacity: float, start: float) -> None:
    found = await search(lambda rate: rate <= capacity, start=start)
    assert len(found.probes) <= MOST_PROBES
    assert found.rate is None or found.rate <= capacity
