from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.frontier import keeps_p99
from llm_proxy.benchmark.rate_search import CONFIRMATIONS, PRECISION, Answer, RateSearch
from llm_proxy.benchmark.report import Probe
from tests.benchmark.reports import make_distribution, make_probe

pytestmark = pytest.mark.anyio

LIMITS = (1.0, 5.0, 10.0, 50.0, 100.0)
SHAPE = make_distribution(1.0)


class Stopped(Exception):
    pass


def queue(capacity: float, idle_ms: float) -> Callable[[float], float]:
    """p99 of a server that gets slow as it fills up."""
    return lambda rate: idle_ms / (1 - rate / capacity) if rate < capacity else 10_000.0


class Target:
    def __init__(
        self,
        p99_ms: Callable[[float], float],
        limits: Sequence[float] = LIMITS,
        *,
        is_rig_bound: Callable[[float], bool] = lambda rate: False,
        most_probes: int = 40,
        stops_at: float = math.inf,
    ) -> None:
        self.limits = [keeps_p99(limit) for limit in limits]
        self.asked: list[int] = []
        self.search = RateSearch(self._probe, self.limits, most_probes=most_probes)
        self._p99_ms = p99_ms
        self._is_rig_bound = is_rig_bound
        self._stops_at = stops_at

    async def _probe(self, rate: float, limit: int) -> Probe:
        self.asked.append(limit)
        if len(self.asked) > self._stops_at:
            raise Stopped
        latency_ms = msgspec.structs.replace(SHAPE, p99=self._p99_ms(rate))
        is_rig_bound = self._is_rig_bound(rate)
        return make_probe(rate, p99_ms=None, latency_ms=latency_ms, rig_bound=is_rig_bound)

    async def answers(self, start: float = 100) -> list[Answer]:
        await self.search.run(start)
        return self.search.answers


@pytest.mark.parametrize(
    ("capacity", "idle_ms"), [(1000.0, 0.5), (20_000.0, 0.8), (300.0, 7.0), (9000.0, 0.01)]
)
async def test_each_limit_has_the_highest_rate_that_keeps_it(
    capacity: float, idle_ms: float
) -> None:
    target = Target(queue(capacity, idle_ms))
    for limit_ms, answer in zip(LIMITS, await target.answers(), strict=True):
        exact = capacity * (1 - idle_ms / limit_ms)
        if exact <= 0:
            assert answer.rate is None
            assert "Even the lowest rate" in answer.note
        else:
            assert answer.confirmed and answer.rate is not None
            assert answer.rate <= exact * 1.0001 <= answer.rate * (1 + PRECISION) * 1.0002
    assert len(target.search.probes) <= 34


async def test_search_goes_down_to_the_lowest_rate_and_no_further() -> None:
    seen: list[float] = []

    async def probe(rate: float, limit: int) -> Probe:
        seen.append(rate)
        return make_probe(rate, p99_ms=90.0)

    search = RateSearch(probe, [keeps_p99(5.0)], most_probes=40, lowest_rate=2.0)
    await search.run(100.0)
    assert seen == [100.0, 100.0, 12.5, 2.0]
    assert [answer.rate for answer in search.answers] == [None]


async def test_loosest_limit_is_searched_first() -> None:
    target = Target(queue(1000, 0.5))
    await target.answers()
    assert target.asked == sorted(target.asked, reverse=True)


async def test_limits_at_the_same_edge_share_its_probes() -> None:
    alone, shared = (
        Target(lambda rate: 2.0 if rate <= 600 else 5000.0, limits)
        for limits in ((3.0,), (3.0, 5.0, 10.0, 100.0))
    )
    (one,) = await alone.answers()
    assert await shared.answers() == [one] * 4
    assert len(shared.search.probes) == len(alone.search.probes)


async def test_miss_at_the_first_rate_is_looked_at_again() -> None:
    seen: list[float] = []

    def cold(rate: float) -> float:
        seen.append(rate)
        return 90.0 if len(seen) == 1 else queue(1000, 0.5)(rate)

    (answer,) = await Target(cold, (5.0,)).answers()
    assert seen[:3] == [100, 100, 200]
    assert answer.confirmed and answer.rate is not None and answer.rate > 800


async def test_lower_rates_that_missed_are_noise_where_more_higher_ones_kept_it() -> None:
    def p99_ms(rate: float) -> float:
        return 20.0 if rate in (100.0, 200.0) else queue(4000, 0.5)(rate)

    target = Target(p99_ms, (5.0, 50.0))
    strict, loose = await target.answers()
    assert strict.rate is not None and strict.rate > 3000
    assert strict.confirmed and loose.confirmed
    noise = target.search.noise(target.limits[0])
    assert noise == "Noise: lower rates missed it (100/s, 200/s)."
    assert target.search.noise(target.limits[1]) == ""


async def test_higher_rates_that_kept_it_are_noise_where_more_lower_ones_missed_it() -> None:
    def p99_ms(rate: float) -> float:
        return 0.5 if rate == 800 else 20.0

    target = Target(p99_ms, (5.0, 50.0), most_probes=12)
    strict, _loose = await target.answers()
    assert strict.rate is None
    assert target.search.noise(target.limits[0]) == "Noise: higher rates kept it (800/s)."


async def test_rig_that_stumbles_in_a_confirmation_costs_a_window() -> None:
    seen: list[float] = []

    def p99_ms(rate: float) -> float:
        seen.append(rate)
        return 20.0 if is_stumble(rate) else queue(1000, 0.5)(rate)

    def is_stumble(rate: float) -> bool:
        return rate == 500 and seen.count(rate) == 2

    target = Target(p99_ms, (1.0,), is_rig_bound=is_stumble)
    (answer,) = await target.answers()
    windows = [probe for probe in target.search.probes if probe.is_confirmation]
    assert (answer.rate, answer.confirmed) == (500, True)
    assert len(windows) == CONFIRMATIONS + 1


async def test_rig_that_is_the_limit_ends_one_search_and_not_the_others() -> None:
    target = Target(queue(10_000, 3.0), (1.0, 5.0, 100.0), is_rig_bound=lambda rate: rate > 9900)
    strict, middle, loose = await target.answers()
    assert "Even the lowest" in strict.note
    assert middle.confirmed
    assert (loose.rate, loose.confirmed) == (6400, False)
    assert "Bound by the rig: at 12,800/s" in loose.note


async def test_search_that_used_up_its_probes_says_so() -> None:
    target = Target(queue(20_000, 0.8), most_probes=20)
    answers = await target.answers()
    assert len(target.search.probes) == 20
    assert answers[-1].confirmed
    assert "the search ended after 20 probes" in answers[0].note
    assert answers[0].rate is not None


async def test_search_that_is_given_up_keeps_what_it_knows() -> None:
    target = Target(queue(1000, 0.5), stops_at=14)
    with pytest.raises(Stopped):
        await target.answers()
    rates = [answer.rate for answer in target.search.answers]
    assert rates == [400, 800, 950, 975, 975]
    assert target.search.answers[-1].confirmed
    assert "interrupted" in target.search.answers[0].note


async def test_figures_are_those_of_the_last_window_at_the_strictest_rate() -> None:
    target = Target(queue(1000, 0.5), (0.1, 1.0, 10.0))
    await target.answers()
    probes = target.search.probes
    assert probes[target.search.chosen].rate == 500
    assert target.search.chosen == max(i for i, one in enumerate(probes) if one.rate == 500)
    idle = Target(lambda rate: 99.0, (1.0,))
    assert idle.search.chosen == 0
    await idle.answers()
    assert idle.search.chosen == len(idle.search.probes) - 1


@given(
    st.floats(0.2, 1e6),
    st.floats(0.01, 200),
    st.floats(0.2, 1e5),
    st.floats(0, 1.5),
    st.integers(0, 1000),
)
async def test_frontier_rises_whatever_the_noise(
    capacity: float, idle_ms: float, start: float, noise: float, seed: int
) -> None:
    random, quiet = Random(seed), queue(capacity, idle_ms)
    target = Target(
        lambda rate: quiet(rate) * math.exp(random.gauss(0, noise)),
        is_rig_bound=lambda rate: random.random() < noise / 10,
        most_probes=25,
    )
    rates = [answer.rate or 0.0 for answer in await target.answers(start)]
    assert rates == sorted(rates)
    assert len(target.search.probes) <= 25
