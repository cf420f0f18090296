from __future__ import annotations

import pytest

from llm_proxy.benchmark.mock_faults import NO_FAULTS, Faults
from llm_proxy.benchmark.mock_options import Freeze, MockOptions
from llm_proxy.benchmark.mock_waits import Waits


def _waits(options: MockOptions) -> Waits:
    return Waits(options, lambda: 0.0)


def test_without_options_nothing_waits() -> None:
    waits = _waits(MockOptions())
    assert waits.before_head_s(NO_FAULTS) == 0
    assert waits.frozen_s() == 0


def test_the_delay_asked_for_replaces_the_latency_and_jitter_comes_on_top() -> None:
    assert _waits(MockOptions(latency_s=2)).before_head_s(Faults(delay_s=1)) == 1
    assert 1 <= _waits(MockOptions(jitter_s=0.5)).before_head_s(Faults(delay_s=1)) <= 1.5


def test_jitter_is_spread_evenly_between_nothing_and_all_of_it() -> None:
    waits = _waits(MockOptions(latency_s=1, jitter_s=0.2))
    drawn = sorted(waits.before_head_s(NO_FAULTS) for _ in range(1000))
    assert 1 <= drawn[0] < 1.01
    assert 1.19 < drawn[-1] <= 1.2
    assert sum(drawn) / 1000 == pytest.approx(1.1, abs=0.01)


def test_jitter_is_the_same_each_time_a_mock_is_started() -> None:
    first, second = (_waits(MockOptions(jitter_s=1)) for _ in range(2))
    drawn = [[waits.before_head_s(NO_FAULTS) for _ in range(5)] for waits in (first, second)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 5


def test_freezes_count_from_the_start_of_the_server() -> None:
    now = [1000.0]
    waits = Waits(MockOptions(freeze=Freeze(every_s=10, for_s=1)), lambda: now[0])
    assert waits.frozen_s() == 0
    now[0] = 1010.25
    assert waits.frozen_s() == 0.75
    now[0] = 1011.5
    assert waits.frozen_s() == 0
