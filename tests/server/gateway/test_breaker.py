from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm_proxy.errors import Refusal
from llm_proxy.providers import CircuitBreaker
from llm_proxy.server.gateway.breaker import MAX_PROBES, Breaker

COOLDOWN_S = 30.0
FAILURES = 3


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Request:
    """Whoever asks the breaker."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trips() -> list[None]:
    return []


@pytest.fixture
def breaker(clock: Clock, trips: list[None]) -> Breaker:
    limits = CircuitBreaker(failures=FAILURES, cooldown=COOLDOWN_S)
    return Breaker(limits, clock, api="openai", on_trip=lambda: trips.append(None))


def trip(breaker: Breaker) -> None:
    for _ in range(FAILURES):
        breaker.failed(Request(), "connect: refused")


def state(breaker: Breaker) -> str:
    return breaker.state


def refused(breaker: Breaker) -> Refusal:
    with pytest.raises(Refusal) as caught:
        breaker.admit(Request())
    return caught.value


def is_admitted(breaker: Breaker, who: Request) -> bool:
    try:
        breaker.admit(who)
    except Refusal:
        return False
    return True


def test_failures_in_a_row_open_it(breaker: Breaker, trips: list[None]) -> None:
    for _ in range(FAILURES - 1):
        breaker.failed(Request(), "connect: refused")
    assert not breaker.is_tripped
    breaker.failed(Request(), "connect: refused")
    assert breaker.is_tripped
    assert state(breaker) == "open"
    assert len(trips) == 1


def test_an_answer_between_failures_starts_the_count_again(breaker: Breaker) -> None:
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.answered(Request(), 500)
        breaker.answered(Request(), 200)
    assert not breaker.is_tripped


@pytest.mark.parametrize("status", [200, 204, 400, 401, 403, 404, 429, 499])
def test_below_500_nothing_is_the_upstreams_fault(breaker: Breaker, status: int) -> None:
    for _ in range(100):
        breaker.answered(Request(), status)
    assert (breaker.failures, state(breaker)) == (0, "closed")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529, 599])
def test_from_500_on_the_upstream_fails(breaker: Breaker, status: int) -> None:
    for _ in range(FAILURES):
        breaker.answered(Request(), status)
    assert state(breaker) == "open"
    assert breaker.reason == f"status {status}"


def test_clients_that_hang_up_neither_fail_nor_answer(breaker: Breaker) -> None:
    breaker.failed(Request(), "timeout")
    for _ in range(100):
        breaker.abandoned(Request())
    assert breaker.failures == 1


def test_the_refusal_says_what_is_wrong_and_when_to_come_again(
    breaker: Breaker, clock: Clock
) -> None:
    trip(breaker)
    clock.now += COOLDOWN_S - 11.5
    refusal = refused(breaker)
    assert (refusal.code, refusal.status_code) == ("circuit_open", 503)
    assert refusal.headers == {"Retry-After": "12"}
    assert refusal.message == (
        "The upstream of the api 'openai' failed 3 times in a row (last: connect: refused); "
        "tried again in 12 s."
    )
    assert refusal.details == {
        "api": "openai",
        "last_failure": "connect: refused",
        "retry_after_seconds": 12,
    }


def test_the_wait_is_never_told_as_zero(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += COOLDOWN_S - 0.001
    assert refused(breaker).headers == {"Retry-After": "1"}


def test_after_the_cooldown_one_probe_passes_and_closes_it(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += COOLDOWN_S
    probe = Request()
    breaker.admit(probe)
    assert state(breaker) == "half_open"
    assert "one request is trying it now" in refused(breaker).message
    breaker.answered(probe, 200)
    assert (state(breaker), breaker.failures) == ("closed", 0)
    breaker.admit(Request())
    breaker.admit(Request())


def test_a_probe_that_fails_opens_it_for_another_cooldown(
    breaker: Breaker, clock: Clock, trips: list[None]
) -> None:
    trip(breaker)
    clock.now += COOLDOWN_S
    probe = Request()
    breaker.admit(probe)
    clock.now += 5
    breaker.answered(probe, 503)
    assert state(breaker) == "open"
    assert len(trips) == 2
    assert refused(breaker).headers == {"Retry-After": "30"}


def test_what_was_sent_before_it_opened_says_nothing(breaker: Breaker, clock: Clock) -> None:
    earlier = Request()
    breaker.admit(earlier)
    trip(breaker)
    breaker.answered(earlier, 200)
    assert state(breaker) == "open"
    clock.now += COOLDOWN_S
    probe = Request()
    breaker.admit(probe)
    breaker.answered(earlier, 200)
    breaker.failed(earlier, "late")
    breaker.abandoned(earlier)
    assert state(breaker) == "half_open"
    assert breaker.reason == "connect: refused"
    breaker.answered(probe, 404)
    assert state(breaker) == "closed"


def test_a_probe_whose_client_hangs_up_makes_room_for_the_next(
    breaker: Breaker, clock: Clock
) -> None:
    trip(breaker)
    clock.now += COOLDOWN_S
    probe = Request()
    breaker.admit(probe)
    refused(breaker)
    breaker.abandoned(probe)
    breaker.admit(Request())
    refused(breaker)


def test_a_forgotten_probe_does_not_wedge_it(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    for _ in range(3 * MAX_PROBES):
        clock.now += COOLDOWN_S
        breaker.admit(Request())
        refused(breaker)


def test_an_upstream_slower_than_the_cooldown_can_close_it(breaker: Breaker, clock: Clock) -> None:
    """Its answer comes when the next probe is already on its way."""
    trip(breaker)
    clock.now += COOLDOWN_S
    slow = Request()
    breaker.admit(slow)
    clock.now += COOLDOWN_S
    breaker.admit(Request())
    breaker.answered(slow, 200)
    assert state(breaker) == "closed"


def test_no_failures_at_all_are_too_many_when_it_is_switched_off(clock: Clock) -> None:
    breaker = Breaker(CircuitBreaker(failures=0), clock)
    for _ in range(1000):
        breaker.failed(Request(), "connect: refused")
    assert not breaker.is_tripped
    breaker.admit(Request())


def test_once_the_cooldown_is_over_it_counts_as_half_open(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += COOLDOWN_S
    assert state(breaker) == "half_open"


class AgainstAModel(RuleBasedStateMachine):
    """A model that keeps every fact by itself: when it opened, who is a probe, what came since."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        limits = CircuitBreaker(failures=FAILURES, cooldown=COOLDOWN_S)
        self.breaker = Breaker(limits, self.clock)
        self.running: list[Request] = []
        self.probes: list[Request] = []
        self.in_a_row = 0
        self.is_open = False
        self.free_at = 0.0

    def opens(self) -> None:
        self.is_open = True
        self.free_at = self.clock.now + COOLDOWN_S

    @rule(seconds=st.sampled_from([0.25, 1.0, COOLDOWN_S / 2, COOLDOWN_S]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def request_comes(self) -> None:
        who = Request()
        expected = not self.is_open or self.clock.now >= self.free_at
        assert is_admitted(self.breaker, who) is expected
        if expected:
            self.running.append(who)
            if self.is_open:
                self.probes = [*self.probes, who][-MAX_PROBES:]
                self.free_at = self.clock.now + COOLDOWN_S

    @precondition(lambda self: self.running)
    @rule(data=st.data(), status=st.sampled_from([200, 401, 429, 500, 503]))
    def upstream_answers(self, data: st.DataObject, status: int) -> None:
        who = self.take(data)
        self.breaker.answered(who, status)
        if status >= 500:
            self.expect_failure(who)
        elif not self.is_open:
            self.in_a_row = 0
        elif who in self.probes:
            self.is_open, self.in_a_row, self.probes = False, 0, []

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def upstream_fails(self, data: st.DataObject) -> None:
        who = self.take(data)
        self.breaker.failed(who, "timeout")
        self.expect_failure(who)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def client_hangs_up(self, data: st.DataObject) -> None:
        who = self.take(data)
        self.breaker.abandoned(who)
        if who in self.probes:
            self.probes.remove(who)
            if not self.probes:
                self.free_at = self.clock.now

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def request_is_forgotten(self, data: st.DataObject) -> None:
        self.take(data)

    def take(self, data: st.DataObject) -> Request:
        return self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))

    def expect_failure(self, who: Request) -> None:
        if not self.is_open:
            self.in_a_row += 1
            if self.in_a_row == FAILURES:
                self.opens()
        elif who in self.probes:
            self.probes.remove(who)
            self.opens()

    @invariant()
    def states_agree(self) -> None:
        assert self.breaker.is_tripped is self.is_open
        assert (state(self.breaker) == "closed") is not self.is_open
        if not self.is_open:
            assert self.breaker.failures == self.in_a_row


AgainstAModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAgainstAModel = AgainstAModel.TestCase
