from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.plan import Open, Stage
from llm_proxy.benchmark.schedule import due_times

RATES = st.floats(min_value=0, max_value=500, allow_nan=False)
STAGES = st.lists(
    st.builds(
        lambda duration, rate: Stage(duration_s=duration, rate=rate),
        st.floats(min_value=0.01, max_value=3),
        RATES,
    ),
    min_size=1,
    max_size=4,
).map(tuple)


def constant(rate: float, duration_s: float) -> Open:
    return Open(stages=(Stage(duration_s=duration_s, rate=rate),), start_rate=rate)


def requests_in(load: Open) -> float:
    rates = [load.start_rate, *(stage.rate for stage in load.stages)]
    return sum(
        stage.duration_s * (before + after) / 2
        for stage, (before, after) in zip(load.stages, pairwise(rates), strict=True)
    )


def test_constant_rate_is_evenly_spaced() -> None:
    assert list(due_times(constant(4, 1), seed=1)) == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(("requests", "rate"), [(7, 100), (14, 25), (11, 0.3), (21, 150)])
def test_rounding_of_the_duration_adds_no_request(requests: int, rate: float) -> None:
    assert requests / rate * rate > requests
    assert len(list(due_times(constant(rate, requests / rate), seed=1))) == requests


def test_lanes_multiply_the_rate() -> None:
    assert len(list(due_times(constant(100, 1), seed=1, lanes=2))) == 200


def test_a_ramp_from_nothing_is_half_of_what_its_end_would_be() -> None:
    ramp = Open(stages=(Stage(duration_s=10, rate=100),), start_rate=0)
    times = list(due_times(ramp, seed=1))
    assert len(times) == 500
    assert sum(time < 5 for time in times) == 125


@given(STAGES, RATES)
def test_every_stage_gets_its_share_in_order(stages: tuple[Stage, ...], start: float) -> None:
    load = Open(stages=stages, start_rate=start)
    times = list(due_times(load, seed=1))
    assert times == sorted(times)
    assert abs(len(times) - requests_in(load)) <= 1.001
    assert all(0 <= time <= load.duration_s + 1e-9 for time in times)


@given(STAGES, st.integers(min_value=1, max_value=4))
def test_processes_together_send_what_one_would(stages: tuple[Stage, ...], count: int) -> None:
    load = Open(stages=stages, start_rate=10)
    shares = [due_times(load, seed=1, process=number, processes=count) for number in range(count)]
    assert sorted(time for share in shares for time in share) == list(due_times(load, seed=1))


def test_poisson_arrivals_depend_on_the_seed_alone_and_have_the_rate() -> None:
    load = Open(stages=(Stage(duration_s=20, rate=500),), start_rate=500, arrivals="poisson")
    times = list(due_times(load, seed=3))
    assert times == list(due_times(load, seed=3)) != list(due_times(load, seed=4))
    assert len(times) == pytest.approx(10_000, rel=0.05)  # five standard deviations
    gaps = [after - before for before, after in pairwise(times)]
    within = sum(gap < 0.002 for gap in gaps) / len(gaps)
    assert within == pytest.approx(1 - 1 / 2.71828, abs=0.03)


def test_poisson_processes_add_up_to_the_rate() -> None:
    load = Open(stages=(Stage(duration_s=20, rate=500),), start_rate=500, arrivals="poisson")
    shares = [list(due_times(load, seed=3, process=i, processes=2)) for i in range(2)]
    assert shares[0][:5] != shares[1][:5]
    assert sum(map(len, shares)) == pytest.approx(10_000, rel=0.05)
