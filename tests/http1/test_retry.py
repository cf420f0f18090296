from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_proxy.http1.retry import FLOOR, MAX_S, PERIOD_S, Retries


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def retries(attempts: int = 1, clock: Clock | None = None, *, factor: float = 1.0) -> Retries:
    return Retries(attempts, clock=clock or Clock(), random=lambda: factor)


def granted(budget: Retries, tries: int) -> int:
    return sum(budget.delay(1) is not None for _ in range(tries))


def test_waits_double_up_to_a_limit() -> None:
    budget = retries(9)
    waits = [budget.delay(tried) for tried in range(1, 8)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_waits_are_any_part_of_the_longest() -> None:
    assert retries(3, factor=0.0).delay(3) == 0.0
    assert retries(3, factor=0.25).delay(3) == pytest.approx(0.1)
    waits = [Retries(1).delay(1) for _ in range(50)]
    assert all(wait is not None and 0 <= wait <= 0.1 for wait in waits)
    assert len(set(waits)) > 1


@pytest.mark.parametrize(("attempts", "tried"), [(0, 1), (1, 2), (3, 4)])
def test_attempts_are_all_there_is(attempts: int, tried: int) -> None:
    budget = retries(attempts)
    assert budget.delay(tried) is None
    assert budget.count == 0


def test_very_many_tries_are_no_overflow() -> None:
    assert retries(10**9).delay(10**6) == MAX_S


def test_rare_requests_get_their_retries() -> None:
    clock = Clock()
    budget = retries(clock=clock)
    for _ in range(20):
        budget.count_request()
        assert budget.delay(1) is not None
        clock.now += 2 * PERIOD_S / FLOOR
    assert budget.count == 20


def test_outage_gets_a_fifth_of_its_requests_retried() -> None:
    clock = Clock()
    budget = retries(clock=clock)
    for _ in range(10_000):
        clock.now += 0.001
        budget.count_request()
        budget.delay(1)
    assert 1900 <= budget.count <= 2010


def test_budget_comes_back_with_time() -> None:
    clock = Clock()
    budget = retries(clock=clock)
    assert granted(budget, 50) == FLOOR
    clock.now += PERIOD_S
    assert granted(budget, 50) == 0
    clock.now += PERIOD_S
    assert granted(budget, 50) == FLOOR
    clock.now += 100 * PERIOD_S
    assert granted(budget, 50) == FLOOR


def test_requests_of_long_ago_allow_nothing() -> None:
    clock = Clock()
    budget = retries(clock=clock)
    for _ in range(1000):
        budget.count_request()
    clock.now += 2 * PERIOD_S
    assert granted(budget, 100) == FLOOR


QUIET = [("q", 0.0)] * 7 + [("q", 1.1)] + [("r", 3.0), ("q", 2.0)] + [("q", 0.0)] * 3


@example([*QUIET, ("q", 1.0), ("q", 3.0), ("q", 3.0), ("r", 3.0)], 1)  # a period begun late
@given(st.lists(st.tuples(st.sampled_from("qqqqqr"), st.floats(0, 3)), max_size=300), st.integers())
def test_retries_never_multiply_an_outage(steps: list[tuple[str, float]], seed: int) -> None:
    """Whatever the traffic: in any 5 s no more than 10, or a fifth of the last 10 s' requests."""
    clock, chance = Clock(), random.Random(seed)
    budget = Retries(3, clock=clock, random=chance.random)
    requests: list[float] = []
    retried: list[float] = []
    for kind, pause in steps:
        clock.now += pause
        for _ in range(chance.choice([1, 1, 30])):
            if kind == "q":
                budget.count_request()
                requests.append(clock.now)
            elif budget.delay(1) is not None:
                retried.append(clock.now)
                recent = sum(when >= clock.now - 2 * PERIOD_S for when in requests)
                spent = sum(when > clock.now - PERIOD_S for when in retried)
                assert spent <= max(FLOOR, recent / 5)
    assert budget.count == len(retried)
