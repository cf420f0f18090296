from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.plan import Open, Replay, Stage
from llm_proxy.benchmark.schedule import due_between, due_times

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


def replay(*offsets_s: float) -> Replay:
    return Replay(offsets_s=offsets_s, bodies=(0,) * len(offsets_s))


def test_a_replay_comes_when_it_was_recorded() -> None:
    assert list(due_times(replay(0, 0.25, 0.25, 3), seed=1)) == [0, 0.25, 0.25, 3]


def test_the_second_lane_of_a_replay_has_its_turn_midway_to_the_next_arrival() -> None:
    assert list(due_times(replay(0, 1, 4), seed=1, lanes=2)) == [0, 0.5, 1, 2.5, 4, 5]


@given(st.lists(st.floats(0, 100), min_size=1).map(sorted), st.integers(1, 4), st.integers(1, 2))
def test_processes_share_a_replay_in_turn(offsets: list[float], count: int, lanes: int) -> None:
    load = replay(*offsets)
    whole = list(due_times(load, seed=1, lanes=lanes))
    assert whole == sorted(whole)
    shares = [
        list(due_times(load, seed=1, process=i, processes=count, lanes=lanes)) for i in range(count)
    ]
    assert sorted(time for share in shares for time in share) == whole
    assert all(share == sorted(share) for share in shares)


@given(STAGES, RATES, st.floats(min_value=0, max_value=12), st.floats(min_value=0, max_value=12))
def test_arrivals_are_counted_as_they_come(
    stages: tuple[Stage, ...], start_rate: float, one_s: float, other_s: float
) -> None:
    begin_s, end_s = sorted((one_s, other_s))
    load = Open(stages=stages, start_rate=start_rate)
    due = [at for at in due_times(load, seed=1, lanes=2) if begin_s <= at < end_s]
    assert abs(due_between(load, begin_s, end_s, lanes=2) - len(due)) <= 2


def test_a_day_at_the_highest_rate_is_counted_at_once() -> None:
    assert due_between(constant(1e6, 86400), 60, 86400, processes=4, lanes=2) == 43_170_000_000


def test_recorded_arrivals_are_counted_for_both_lanes() -> None:
    load = Replay(offsets_s=(0, 0.5, 0.5, 1, 2), bodies=(0, 0, 0, 0, 0))
    assert due_between(load, 0.5, 2, lanes=2) == 6
