from __future__ import annotations

import pytest

from llm_proxy.gcra import SECOND
from llm_proxy.limits import Limits, RateLimit
from llm_proxy.server.gateway.leased_meter import LeasedMeter, most_ahead
from tests.server.gateway.limits import at_once


@pytest.mark.parametrize(
    ("rate", "ahead"),
    [
        (RateLimit(1000, 1, 1000), 50),
        (RateLimit(1000, 1, 10), 1),
        (RateLimit(60, 60, 60), 1),
        (RateLimit(100, 1, 100), 5),
    ],
)
def test_permits_are_asked_ahead_where_the_burst_has_room(rate: RateLimit, ahead: int) -> None:
    assert most_ahead(rate) == ahead


def test_twice_as_many_are_asked_while_they_are_used_up_in_time() -> None:
    meter = LeasedMeter("token:a", Limits(rate=RateLimit(1000, 1, 1000)), workers=2)
    asked = []
    for _ in range(8):
        asked.append(meter.next_ahead(0, is_first=True))
        meter.add(asked[-1], SECOND, 0)
        meter.stock = 0
    assert asked == [2, 4, 8, 16, 32, 50, 50, 50]
    assert meter.next_ahead(2 * SECOND, is_first=True) == 25
    assert meter.next_ahead(2 * SECOND, is_first=False) == 25


def test_what_is_added_ends_with_the_first_of_it() -> None:
    meter = LeasedMeter("token:a", Limits(rate=RateLimit(1000, 1, 1000)), workers=2)
    meter.add(3, 100, 0)
    meter.add(2, 200, 50)
    assert (meter.stock, meter.valid_until) == (5, 100)
    meter.add(2, 300, 150)
    assert (meter.stock, meter.valid_until) == (2, 300)


@pytest.mark.parametrize(("most", "spare"), [(7, 0), (8, 1), (100, 12)])
def test_small_limits_are_never_taken_ahead(most: int, spare: int) -> None:
    meter = LeasedMeter("token:a", at_once(most), workers=2)
    assert meter.spare_slots == spare
    assert meter.next_slots() == 1
