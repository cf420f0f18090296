from __future__ import annotations

import pytest

from llm_proxy.benchmark.memory_trend import MemoryTrend

MIB = 1024 * 1024


def trend_of(memory_mib: list[float], *, every_s: float = 1.0) -> MemoryTrend:
    trend = MemoryTrend()
    for i, mib in enumerate(memory_mib):
        trend.note(1000 + i * every_s, int(mib * MIB))
    return trend


def test_steady_memory_does_not_grow() -> None:
    trend = trend_of([80.0] * 60)
    assert trend.steady_mib() == 80.0
    assert trend.growth_mib_per_min() == 0.0


def test_a_leak_grows_by_so_much_a_minute() -> None:
    trend = trend_of([80 + i * 0.5 for i in range(60)])
    assert trend.growth_mib_per_min() == pytest.approx(30.0, rel=1e-3)
    assert trend.steady_mib() == pytest.approx(80 + 44.5 * 0.5, abs=0.3)


def test_what_is_taken_once_at_the_start_is_no_growth() -> None:
    trend = trend_of([60.0, 66.0, 72.0, 78.0, *[80.0] * 56])
    assert trend.growth_mib_per_min() == 0.0
    assert trend.steady_mib() == 80.0


def test_a_few_odd_values_change_nothing() -> None:
    memory = [80.0 + i / 60 for i in range(60)]
    memory[30] = memory[50] = 300.0
    assert trend_of(memory).growth_mib_per_min() == pytest.approx(1.0, rel=0.05)


def test_memory_that_is_given_back_shrinks() -> None:
    growth = trend_of([100 - i / 10 for i in range(60)]).growth_mib_per_min()
    assert growth == pytest.approx(-6.0, rel=1e-3)


@pytest.mark.parametrize("memory", [[], [80.0], [80.0 + i for i in range(18)]])
def test_a_short_run_has_no_trend(memory: list[float]) -> None:
    trend = trend_of(memory)
    assert (trend.steady_mib(), trend.growth_mib_per_min()) == (None, None)


def test_growth_by_the_minute_wants_a_minute() -> None:
    trend = trend_of([80.0 + i for i in range(40)])
    assert trend.steady_mib() is not None
    assert trend.growth_mib_per_min() is None


def test_of_few_values_nothing_is_known_however_long_it_took() -> None:
    assert trend_of([80.0] * 7, every_s=10.0).growth_mib_per_min() is None
    assert trend_of([80.0] * 8, every_s=10.0).growth_mib_per_min() == 0.0


def test_a_long_run_is_seen_from_end_to_end() -> None:
    trend = trend_of([80 + i / 60 for i in range(5000)])
    assert trend.growth_mib_per_min() == pytest.approx(1.0, rel=1e-3)
