from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.gcra import MAX_LAG, MIN_LAG, SECOND, Gcra, IssuingGcra
from llm_proxy.limits import RateLimit

rates = st.builds(
    RateLimit,
    requests=st.integers(1, 50),
    window_s=st.sampled_from([1, 60]),
    burst=st.integers(1, 8),
)
gaps = st.one_of(st.just(0), st.integers(0, SECOND // 10), st.integers(0, 20 * SECOND))
moments = st.lists(gaps, max_size=25)


def _sums(waits: Sequence[int]) -> list[int]:
    now, found = 10**15, []
    for wait in waits:
        now += wait
        found.append(now)
    return found


def _conforms(admitted: Sequence[int], rate: RateLimit) -> bool:
    """In any time T no more than burst + T * rate; exact, with an interval of whole nanoseconds."""
    interval = -(-rate.window_s * SECOND // rate.requests)
    return all(
        (last - first + 1 - rate.burst) * interval <= admitted[last] - admitted[first]
        for last in range(len(admitted))
        for first in range(last + 1)
    )


@given(rate=rates, waits=moments)
def test_never_more_than_the_burst_and_the_rate_in_any_time(
    rate: RateLimit, waits: list[int]
) -> None:
    gcra, admitted = Gcra(rate), []
    for now in _sums(waits):
        if gcra.wait(now) <= 0:
            gcra.charge(now)
            admitted.append(now)
    assert _conforms(admitted, rate)


@given(rate=rates, waits=moments)
def test_refuses_only_what_would_be_too_much(rate: RateLimit, waits: list[int]) -> None:
    gcra, admitted = Gcra(rate), []
    for now in _sums(waits):
        if gcra.wait(now) <= 0:
            gcra.charge(now)
            admitted.append(now)
        else:
            assert not _conforms([*admitted, now], rate)
            assert _conforms([*admitted, now + gcra.wait(now)], rate)


@given(rate=rates, waits=moments, refunded=st.lists(st.booleans(), min_size=25, max_size=25))
def test_refunds_give_back_no_more_than_was_taken(
    rate: RateLimit, waits: list[int], refunded: list[bool]
) -> None:
    """A refunded request is as if it had never been; the next moment is when it is refunded."""
    gcra, admitted = Gcra(rate), []
    pending: int | None = None
    for now, is_refunded in zip(_sums(waits), refunded, strict=False):
        if pending is not None:
            gcra.refund(pending, now)
            pending = None
        if gcra.wait(now) <= 0:
            arrival = gcra.charge(now)
            if is_refunded:
                pending = arrival
            else:
                admitted.append(now)
    assert _conforms(admitted, rate)


def test_refund_in_the_middle_of_a_burst_is_whole() -> None:
    gcra = Gcra(RateLimit(60, 60, 2))
    first = gcra.charge(0)
    gcra.charge(0)
    assert gcra.wait(5) > 0
    gcra.refund(first, 5)
    assert gcra.wait(5) <= 0


def test_no_rate_never_waits() -> None:
    gcra = Gcra(None)
    for now in (5, 5, 5):
        assert gcra.wait(now) <= 0
        gcra.charge(now)


def test_altered_rate_keeps_what_is_used_up() -> None:
    gcra = Gcra(RateLimit(60, 60, 60))
    for _ in range(60):
        gcra.charge(0)
    gcra.alter(RateLimit(10, 1, 10), 0)
    assert gcra.wait(0) == SECOND // 10
    gcra.alter(RateLimit(60, 60, 60), 0)
    assert gcra.wait(0) == SECOND


def test_new_rate_of_what_had_none_starts_unused() -> None:
    gcra = Gcra(None)
    gcra.charge(7)
    gcra.alter(RateLimit(1, 1, 1), 7)
    assert gcra.wait(7) <= 0
    gcra.alter(None, 7)
    assert gcra.wait(7) <= 0


# Since the last question: so many intervals of the rate, and some time; then the permits wanted, or
# which of those taken before are given back.
questions = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, SECOND // 8),
        st.integers(1, 8),
        st.booleans(),
    ),
    max_size=14,
)


def _issue(gcra: IssuingGcra, asked: list[tuple[int, int, int, bool]]) -> list[int]:
    """When those permits were issued that were not given back."""
    now = 10**15
    issued: list[tuple[int, int]] = []  # when, and how many
    for intervals, more, number, gives_back in asked:
        now += intervals * gcra.interval + more
        if gives_back and issued:
            at, permits = issued.pop(-number % len(issued))
            gcra.give_back(permits, now, now - at)
        else:
            permits = gcra.take(now, number)
            assert permits <= number
            issued += [(now, permits)] * (permits > 0)
    return sorted(at for at, permits in issued for _ in range(permits))


@given(rate=rates, asked=questions, delays=st.lists(st.floats(0, 1), min_size=112, max_size=112))
def test_issued_permits_keep_the_rate_whenever_they_are_used(
    rate: RateLimit, asked: list[tuple[int, int, int, bool]], delays: list[float]
) -> None:
    gcra = IssuingGcra(rate)
    issued = _issue(gcra, asked)
    used = [at + int(gcra.lag * delay) for at, delay in zip(issued, delays, strict=False)]
    assert _conforms(sorted(used), rate)


@settings(max_examples=300)
@given(rate=rates, asked=questions)
def test_issued_permits_keep_the_rate_at_the_worst_moments(
    rate: RateLimit, asked: list[tuple[int, int, int, bool]]
) -> None:
    """The first of any window used as late as can be, the others at once."""
    gcra = IssuingGcra(rate)
    issued = _issue(gcra, asked)
    for first, at in enumerate(issued):
        for last in range(first, len(issued)):
            extra = last - first + 1 - rate.burst
            assert extra * gcra.interval <= max(0, issued[last] - at - gcra.lag)


@given(rate=rates, given_back=st.integers(0, 8), age=st.integers(0, SECOND))
def test_permits_given_back_are_no_more_than_were_taken(
    rate: RateLimit, given_back: int, age: int
) -> None:
    gcra = IssuingGcra(rate)
    start = 10**15
    taken = gcra.take(start, 20)
    assert taken == rate.burst
    back = min(given_back, taken)
    gcra.give_back(back, start + age, age)
    again = gcra.take(start + age, 20)
    interval = gcra.interval
    assert taken - back + again <= rate.burst + age // interval


def test_whole_burst_is_issued_at_once_and_again_when_given_back() -> None:
    gcra = IssuingGcra(RateLimit(10, 86400, 10))
    assert gcra.take(0, 20) == 10
    assert gcra.wait_for_issue(0) == 8640 * SECOND + gcra.lag
    gcra.give_back(4, 1000, 1000)
    assert gcra.take(1000, 20) == 4


def test_what_was_issued_long_ago_gives_nothing_back() -> None:
    gcra = IssuingGcra(RateLimit(10, 1, 10))
    assert gcra.take(0, 1) == 1
    gcra.give_back(1, 5 * SECOND, 5 * SECOND)
    assert gcra.take(5 * SECOND, 20) == 10


def test_altered_rate_issues_no_second_burst() -> None:
    gcra = IssuingGcra(RateLimit(10, 60, 10))
    gcra.take(0, 10)
    gcra.alter(RateLimit(20, 60, 20), 0)
    assert gcra.take(0, 20) == 0


def test_idle_is_what_would_do_as_a_new_one() -> None:
    gcra = IssuingGcra(RateLimit(10, 1, 10))
    assert gcra.is_idle(SECOND)
    gcra.take(SECOND, 1)
    assert not gcra.is_idle(SECOND + SECOND // 10)
    assert gcra.is_idle(SECOND + SECOND // 5)


@pytest.mark.parametrize(
    ("rate", "lag"),
    [
        (RateLimit(1000, 1, 1000), MAX_LAG),
        (RateLimit(60, 60, 1), SECOND // 20),
        (RateLimit(1000, 1, 1), MIN_LAG),
        (RateLimit(1, 86400, 1), MAX_LAG),
    ],
)
def test_lag_hardly_slows_a_rate(rate: RateLimit, lag: int) -> None:
    assert IssuingGcra(rate).lag == lag
