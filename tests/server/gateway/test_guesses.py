from __future__ import annotations

import pytest

from llm_proxy.server.gateway import guesses
from llm_proxy.server.gateway.guesses import IN_ALL, PER_ADDRESS, Guesses


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def miss(guesses: Guesses, client_ip: str, times: int = 1) -> int:
    """How many of these were looked up."""
    looked_up = 0
    for _ in range(times):
        if guesses.may_look_up(client_ip):
            guesses.missed(client_ip)
            looked_up += 1
    return looked_up


def test_address_has_a_budget_for_each_second(clock: Clock) -> None:
    guesses = Guesses(clock)
    assert miss(guesses, "192.0.2.1", 100) == PER_ADDRESS
    clock.now += 1
    assert miss(guesses, "192.0.2.1", 100) == PER_ADDRESS


def test_hundred_thousand_guesses_a_minute_cost_a_fixed_number_of_look_ups(clock: Clock) -> None:
    guesses = Guesses(clock)
    looked_up = 0
    for number in range(100_000):
        clock.now = 1000.0 + 60 * number / 100_000
        looked_up += miss(guesses, f"192.0.2.{number % 250}")
    # Each address is new once; from then on they share one budget.
    assert looked_up <= 250 + 60 * IN_ALL


def test_who_never_guessed_is_looked_up_whatever_others_do(clock: Clock) -> None:
    guesses = Guesses(clock)
    for number in range(2 * IN_ALL):
        miss(guesses, f"10.0.{number // 250}.{number % 250}")
    assert not guesses.may_look_up("10.0.0.1")
    assert guesses.may_look_up("192.0.2.1")


def test_guesser_is_forgotten_after_a_while(clock: Clock) -> None:
    guesses = Guesses(clock)
    miss(guesses, "192.0.2.1")
    clock.now += 61
    for number in range(2 * IN_ALL):
        miss(guesses, f"10.0.{number // 250}.{number % 250}")
    assert guesses.may_look_up("192.0.2.1")


def test_ipv6_client_is_its_network(clock: Clock) -> None:
    guesses = Guesses(clock)
    looked_up = sum(miss(guesses, f"2001:db8::{number:x}") for number in range(100))
    assert looked_up == PER_ADDRESS
    assert guesses.may_look_up("2001:db8:0:1::1")


def test_more_guessers_than_can_be_remembered_are_taken_for_all(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "REMEMBERED", IN_ALL)
    table = Guesses(clock)
    for number in range(IN_ALL):
        miss(table, f"10.0.{number // 250}.{number % 250}")
    assert not table.may_look_up("192.0.2.1")
