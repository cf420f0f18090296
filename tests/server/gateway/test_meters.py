from __future__ import annotations

import pytest

from llm_proxy.errors import Refusal
from llm_proxy.limits import Limits
from llm_proxy.server.gateway.meters import Meters, MeterTable
from llm_proxy.server.gateway.subjects import Claim, Subject
from tests.server.gateway.limits import Clock, at_once, per_minute

NOBODY = None


def claim(name: str, limits: Limits, *, limit: str = "client_ip") -> Claim:
    return Claim((Subject(f"{limit}:{name}", limit, limits),))


def test_full_table_counts_all_others_as_one() -> None:
    meters = Meters(Clock(), most=2)
    limits = per_minute(1)
    for name in ("a", "b", "c"):
        meters.take(claim(name, limits), NOBODY)
    with pytest.raises(Refusal):
        meters.take(claim("d", limits), NOBODY)


def test_addresses_do_not_crowd_out_tokens() -> None:
    meters = Meters(Clock(), most=2)
    limits = per_minute(1)
    for name in ("a", "b", "c"):
        meters.take(claim(name, limits), NOBODY)
    for name in ("a", "b"):
        meters.take(claim(name, limits, limit="token"), NOBODY)


def test_idle_ones_make_room() -> None:
    clock = Clock()
    meters = Meters(clock, most=2)
    limits = per_minute(1)
    for name in ("a", "b"):
        meters.give_back(meters.take(claim(name, limits), NOBODY))
    clock.advance(60)
    for name in ("c", "d"):
        meters.take(claim(name, limits), NOBODY)


def test_running_ones_are_not_forgotten() -> None:
    clock = Clock()
    meters = Meters(clock)
    limits = at_once(1)
    slots = meters.take(claim("a", limits), NOBODY)
    clock.advance(3600)
    meters.check()
    with pytest.raises(Refusal):
        meters.take(claim("a", limits), NOBODY)
    meters.give_back(slots)
    meters.cancel(NOBODY)
    meters.take(claim("a", limits), NOBODY)


class Idle:
    def __init__(self, is_idle: bool) -> None:
        self._is_idle = is_idle

    def is_idle(self, now: int) -> bool:
        return self._is_idle


def test_sweeps_come_around_to_every_meter() -> None:
    table: MeterTable[Idle] = MeterTable()
    for number in range(10):
        table.meters[str(number)] = Idle(number % 2 == 0)
    for _ in range(5):
        table.sweep(0, 2)
    assert set(table.meters) == {"1", "3", "5", "7", "9"}


def test_a_claim_outlives_the_meters_that_it_knew() -> None:
    clock = Clock()
    meters = Meters(clock)
    limits = per_minute(1)
    one, other = claim("a", limits), claim("a", limits)
    meters.give_back(meters.take(one, NOBODY))
    clock.advance(61)
    meters.check()
    meters.give_back(meters.take(other, NOBODY))
    with pytest.raises(Refusal):
        meters.take(one, NOBODY)
