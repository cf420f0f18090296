from __future__ import annotations

from llm_proxy.benchmark.pair_join import MOST_WAITING, PairJoin
from llm_proxy.benchmark.plan import DIRECT, PROXIED
from llm_proxy.benchmark.samples import NONE


def test_halves_are_joined_in_the_order_they_come() -> None:
    join = PairJoin()
    join.add(DIRECT, [(0, (10,)), (2, (12,)), (1, (11,))])
    join.add(PROXIED, [(2, (22,)), (0, (20,))])
    assert join.joined() == [((22,), (12,)), ((20,), (10,))]


def test_a_half_waits_for_its_partner() -> None:
    join = PairJoin()
    join.add(PROXIED, [(5, (1,))])
    assert join.joined() == []
    join.add(DIRECT, [(5, (2,))])
    assert join.joined() == [((1,), (2,))]
    assert join.joined() == []


def test_unpaired_requests_are_no_pair() -> None:
    join = PairJoin()
    join.add(PROXIED, [(NONE, (1,))])
    join.add(DIRECT, [(NONE, (2,))])
    assert join.joined() == []


def test_the_oldest_half_is_dropped_when_too_many_wait() -> None:
    join = PairJoin()
    join.add(PROXIED, ((number, (0,)) for number in range(MOST_WAITING + 10)))
    join.add(DIRECT, [(9, (1,)), (10, (1,))])
    assert join.joined() == [((0,), (1,))]
