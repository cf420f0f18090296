from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.errors import Refusal
from llm_proxy.gcra import SECOND
from llm_proxy.limits import LimitDefaults, LimitOverride, Limits, RateLimit
from llm_proxy.server.gateway.limiter import NO_SLOTS, Limiter
from llm_proxy.server.gateway.meters import Slots
from tests.server.gateway.limits import Clock, Token, at_once, limited, per_minute

IP = "192.0.2.1"


def never() -> None:
    raise AssertionError("one worker never waits")


def take(limiter: Limiter, token: Token, address: str = IP) -> Slots[Any]:
    slots = limiter.take(token, address, never)
    assert slots is not None
    return slots


def refusal_of(limiter: Limiter, token: Token, address: str = IP) -> Refusal:
    with pytest.raises(Refusal) as caught:
        limiter.take(token, address, never)
    return caught.value


def make(clock: Clock, **defaults: Any) -> Limiter:
    return Limiter(LimitDefaults(**defaults), clock=clock)


def test_without_limits_everything_passes_for_nothing() -> None:
    limiter, token = Limiter(), Token()
    assert take(limiter, token) is NO_SLOTS
    limiter.give_back(NO_SLOTS)
    limiter.refund(NO_SLOTS)
    assert limiter.running == 0


def test_rate_of_a_token_passes_its_burst_and_then_one_an_interval() -> None:
    clock = Clock()
    limiter, token = make(clock), Token(token_limits=limited("3/min"))
    for _ in range(3):
        limiter.give_back(take(limiter, token))
    refused = refusal_of(limiter, token)
    assert refused.code == "rate_limited"
    assert refused.headers["Retry-After"] == "20"
    assert refused.details["limit"] == "token"
    clock.advance(20)
    take(limiter, token)
    refusal_of(limiter, token)


def test_tokens_do_not_share_their_default_limit() -> None:
    limiter = make(Clock(), token=per_minute(1))
    take(limiter, Token(token_id="a"))
    take(limiter, Token(token_id="b"))
    refusal_of(limiter, Token(token_id="a"))


def test_tokens_of_a_project_share_its_limit() -> None:
    limiter = make(Clock(), project=per_minute(2))
    take(limiter, Token(token_id="a"))
    take(limiter, Token(token_id="b"))
    assert refusal_of(limiter, Token(token_id="c")).details["limit"] == "project"
    take(limiter, Token(token_id="a", project_id="p2"))


def test_addresses_do_not_share_theirs() -> None:
    limiter = make(Clock(), client_ip=per_minute(1))
    take(limiter, Token(), "192.0.2.1")
    take(limiter, Token(), "192.0.2.2")
    assert refusal_of(limiter, Token(), "::ffff:192.0.2.1").details["limit"] == "client_ip"


def test_all_requests_share_the_total() -> None:
    limiter = make(Clock(), total=per_minute(2))
    take(limiter, Token(token_id="a", project_id="a"), "192.0.2.1")
    take(limiter, Token(token_id="b", project_id="b"), "192.0.2.2")
    assert refusal_of(limiter, Token(token_id="c", project_id="c"), "192.0.2.3")


def test_own_limit_overrides_the_default_and_lifts_it() -> None:
    limiter = make(Clock(), token=per_minute(1))
    for _ in range(5):
        take(limiter, Token(token_limits=LimitOverride(rate_limit="unlimited")))


def test_refused_by_one_limit_is_charged_to_none() -> None:
    clock = Clock()
    limiter = make(clock, total=per_minute(2), token=per_minute(1))
    take(limiter, Token(token_id="a"))
    for _ in range(5):
        assert refusal_of(limiter, Token(token_id="a")).details["limit"] == "token"
    take(limiter, Token(token_id="b"))
    assert refusal_of(limiter, Token(token_id="c")).details["limit"] == "total"


def test_refusal_names_the_limit_that_lasts_longest() -> None:
    clock = Clock()
    limiter = make(clock, total=Limits(rate=RateLimit(1, 1, 1)), token=per_minute(1))
    take(limiter, Token())
    assert refusal_of(limiter, Token()).details["limit"] == "token"


def test_slots_are_free_when_their_requests_end() -> None:
    limiter, token = make(Clock()), Token(token_limits=limited(concurrent=2))
    first = take(limiter, token)
    take(limiter, token)
    assert limiter.running == 2
    refused = refusal_of(limiter, token)
    assert (refused.status_code, refused.code) == (429, "concurrency_limited")
    assert refused.headers == {"Retry-After": "1"}
    limiter.give_back(first)
    take(limiter, token)
    refusal_of(limiter, token)


def test_all_slots_of_the_server_in_use_is_overloaded() -> None:
    limiter = make(Clock(), total=at_once(1))
    slots = take(limiter, Token())
    assert refusal_of(limiter, Token()).code == "overloaded"
    limiter.give_back(slots)
    take(limiter, Token())


def test_rate_that_is_used_up_is_told_before_slots_that_are() -> None:
    limiter, token = make(Clock()), Token(token_limits=limited("1/min", concurrent=1))
    take(limiter, token)
    assert refusal_of(limiter, token).code == "rate_limited"


def test_refund_gives_back_rate_and_slot() -> None:
    limiter, token = make(Clock()), Token(token_limits=limited("1/min", concurrent=1))
    limiter.refund(take(limiter, token))
    assert limiter.running == 0
    take(limiter, token)
    refusal_of(limiter, token)


def test_new_snapshot_of_a_token_finds_its_count() -> None:
    limiter = make(Clock())
    take(limiter, Token(token_limits=limited("1/min")))
    refusal_of(limiter, Token(token_limits=limited("1/min")))


def test_altered_limits_hold_at_once_and_keep_the_count() -> None:
    clock = Clock()
    limiter = make(clock)
    running = [take(limiter, Token(token_limits=limited("2/min", concurrent=5))) for _ in range(2)]
    refusal_of(limiter, Token(token_limits=limited("4/min", concurrent=5)))
    clock.advance(60)
    refused = refusal_of(limiter, Token(token_limits=limited("4/min", concurrent=2)))
    assert refused.code == "concurrency_limited"
    for slots in running:
        limiter.give_back(slots)
    take(limiter, Token(token_limits=limited("4/min", concurrent=2)))


def test_refusals_are_counted_by_limit() -> None:
    limiter = make(Clock(), token=per_minute(1), total=at_once(2))
    take(limiter, Token(token_id="a"))
    refusal_of(limiter, Token(token_id="a"))
    take(limiter, Token(token_id="b"))
    refusal_of(limiter, Token(token_id="c"))
    assert limiter.refusals == {("token", "rate"): 1, ("total", "concurrency"): 1}


def test_idle_counts_are_forgotten_by_and_by() -> None:
    clock = Clock()
    limiter = make(clock, client_ip=per_minute(1))
    for number in range(300):
        limiter.give_back(take(limiter, Token(), f"10.0.{number // 256}.{number % 256}"))
    refusal_of(limiter, Token(), "10.0.0.1")
    clock.advance(61)
    limiter.check(0.0)
    limiter.check(0.0)
    take(limiter, Token(), "10.0.0.1")


@settings(max_examples=50)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["take", "end", "refund"]),
            st.integers(0, 2),
            st.integers(0, SECOND),
        ),
        max_size=60,
    )
)
def test_no_schedule_passes_more_than_any_limit(steps: list[tuple[str, int, int]]) -> None:
    clock = Clock()
    rate = RateLimit(2, 1, 3)
    limiter = make(clock, total=Limits(rate=rate, max_concurrent=2), token=at_once(1))
    tokens = [Token(token_id=str(number)) for number in range(3)]
    running: list[tuple[int, int, Slots[Any]]] = []  # token, admission
    admitted: dict[int, int] = {}  # when, by number
    for number, (step, which, wait) in enumerate(steps):
        clock.now += wait
        if step == "take":
            try:
                slots = take(limiter, tokens[which])
            except Refusal:
                continue
            running.append((which, number, slots))
            admitted[number] = clock.now
        elif running:
            _, of, slots = running.pop(which % len(running))
            if step == "refund":
                limiter.refund(slots)
                del admitted[of]
            else:
                limiter.give_back(slots)
        assert limiter.running == len(running) <= 2
        assert len({token for token, _, _ in running}) == len(running)
    moments = sorted(admitted.values())
    for first in range(len(moments)):
        for last in range(first, len(moments)):
            seconds = (moments[last] - moments[first]) / SECOND
            assert last - first + 1 <= rate.burst + seconds * 2 + 1e-6
