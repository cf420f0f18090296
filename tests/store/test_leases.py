from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from llm_proxy.grants import Lease, LeaseUse, NoPermits
from llm_proxy.store.database import Store
from llm_proxy.store.leases import (
    extend_lease,
    give_back_leases,
    give_back_unknown,
    holders_of,
    refund_requests,
    settle_holder,
    settle_leases,
    take_lease,
    write_off_holder,
)
from llm_proxy.store.projects import delete_project
from llm_proxy.store.tokens import Token, TokenChanges, get_token, update_token

AddToken = Callable[..., tuple[Token, bytes]]


class Desk:
    """Takes leases of one token; what the store holds of it."""

    def __init__(self, store: Store, token: Token, now: datetime) -> None:
        self._store = store
        self.token = token
        self._now = now

    def take(self, wanted: int = 1000, holder: str = "w") -> Lease | NoPermits | None:
        return take_lease(self._store, self.token.id, wanted, host="h", holder=holder, at=self._now)

    def lease(self, wanted: int = 1000, holder: str = "w") -> Lease:
        lease = self.take(wanted, holder)
        assert isinstance(lease, Lease)
        return lease

    def cap(self, cap: int | None) -> None:
        update_token(self._store, self.token.id, TokenChanges(max_requests=cap), at=self._now)

    @property
    def state(self) -> tuple[int, int, int]:
        """Requests counted, permits reserved, leases open."""
        with self._store.reading() as database:
            columns = "SELECT request_count, reserved FROM tokens WHERE id = ?"
            ((count, reserved),) = database.sql(columns, (self.token.id,))
            ((leases,),) = database.sql("SELECT COUNT(*) FROM leases")
        return count, reserved, leases


@pytest.fixture
def desk(store: Store, add_token: AddToken, now: datetime) -> Desk:
    """Of a token with a cap of 100."""
    token, _ = add_token(max_requests=100)
    return Desk(store, token, now)


def used(lease: Lease, count: int, at: float = 0.0) -> LeaseUse:
    return LeaseUse(lease.id, count, at)


def test_a_lease_is_a_quarter_of_what_remains_and_one_permit_at_the_end(desk: Desk) -> None:
    sizes = []
    while isinstance(lease := desk.take(), Lease):
        sizes.append(lease.granted)
    assert sizes[:4] == [25, 18, 14, 10]
    assert sizes[-4:] == [1, 1, 1, 1]
    assert sum(size for size in sizes if size) == 100
    assert lease == NoPermits(is_final=False)
    assert desk.state == (0, 100, len(sizes))


def test_a_lease_is_no_larger_than_wanted(desk: Desk) -> None:
    assert desk.lease(7).granted == 7


def test_a_cap_that_is_used_up_is_final(store: Store, desk: Desk) -> None:
    desk.cap(1)
    lease = desk.lease()
    assert desk.take() == NoPermits(is_final=False)
    give_back_leases(store, [used(lease, 1)])
    assert desk.take() == NoPermits(is_final=True)


def test_a_token_that_is_gone_has_no_lease(store: Store, desk: Desk) -> None:
    lease = desk.lease()
    delete_project(store, desk.token.project_id, force=True, at=desk.token.created_at)
    assert desk.take() is None
    assert extend_lease(store, used(lease, 1), 5) is None
    settle_leases(store, [used(lease, 1)])
    give_back_leases(store, [used(lease, 1)])


def test_settling_counts_once_whatever_is_told_again_or_late(store: Store, desk: Desk) -> None:
    lease = desk.lease(20)
    for count, expected in ((5, 5), (5, 5), (9, 9), (3, 9)):
        settle_leases(store, [used(lease, count)])
        assert desk.state == (expected, 20 - expected, 1)


def test_a_lease_given_back_frees_what_it_has_not_spent(store: Store, desk: Desk) -> None:
    lease, other = desk.lease(20), desk.lease(10)
    settle_leases(store, [used(lease, 4)])
    for _ in range(2):
        give_back_leases(store, [used(lease, 6)])
        assert desk.state == (6, 10, 1)
    settle_leases(store, [used(lease, 20), used(other, 1)])
    assert desk.state == (7, 9, 1)


def test_the_last_word_may_take_back_a_request_of_which_nothing_left(
    store: Store, desk: Desk
) -> None:
    lease = desk.lease(20)
    settle_leases(store, [used(lease, 4)])
    give_back_leases(store, [used(lease, 3)])
    assert desk.state == (3, 0, 0)


def test_ids_of_leases_are_never_used_again(store: Store, desk: Desk) -> None:
    first = desk.lease()
    give_back_leases(store, [used(first, 0)])
    assert desk.lease().id > first.id


def test_an_extended_lease_grows_by_what_remains(store: Store, desk: Desk) -> None:
    lease = desk.lease(10)
    assert extend_lease(store, used(lease, 8), 20) == Lease(lease.id, 30)
    assert desk.state == (8, 22, 1)
    give_back_leases(store, [used(lease, 30)])
    assert desk.state == (30, 0, 0)


def test_a_lease_that_can_not_grow_is_settled_all_the_same(store: Store, desk: Desk) -> None:
    desk.cap(2)
    lease, other = desk.lease(), desk.lease()
    assert extend_lease(store, used(lease, 1), 5) == NoPermits(is_final=False)
    assert extend_lease(store, used(other, 1), 5) == NoPermits(is_final=True)
    assert desk.state == (2, 0, 2)


def test_many_leases_of_several_tokens_are_settled_at_once(
    store: Store, desk: Desk, add_token: AddToken, now: datetime
) -> None:
    other = Desk(store, add_token(max_requests=1000)[0], now)
    with store.writing():
        leases = [each.lease(1) for _ in range(20) for each in (desk, *[other] * 11)]
    settle_leases(store, [used(lease, 1) for lease in leases])
    assert desk.state == (20, 0, 240)
    assert other.state == (220, 0, 240)


def test_last_use_only_rises(store: Store, desk: Desk) -> None:
    lease = desk.lease()

    def last_used_at() -> float | None:
        token = get_token(store, desk.token.id)
        assert token is not None
        return None if token.last_used_at is None else token.last_used_at.timestamp()

    settle_leases(store, [used(lease, 0)])
    assert last_used_at() is None
    for at, expected in ((1000.5, 1000.5), (999.0, 1000.5), (2000.25, 2000.25)):
        settle_leases(store, [used(lease, 1, at)])
        assert last_used_at() == expected
    give_back_leases(store, [used(lease, 1, 3000.0)])
    assert last_used_at() == 3000.0


class TestWithoutCap:
    @pytest.fixture
    def desk(self, store: Store, add_token: AddToken, now: datetime) -> Desk:
        token, _ = add_token(max_requests=None)
        return Desk(store, token, now)

    def test_everything_is_granted_and_counted(self, store: Store, desk: Desk) -> None:
        lease = desk.lease()
        assert lease.granted is None
        settle_leases(store, [used(lease, 5)])
        assert extend_lease(store, used(lease, 7), 1) == Lease(lease.id, None)
        assert desk.state == (7, 0, 1)
        give_back_leases(store, [used(lease, 9)])
        assert desk.state == (9, 0, 0)

    def test_a_new_cap_waits_for_what_was_spent_without_one(self, store: Store, desk: Desk) -> None:
        lease = desk.lease()
        desk.cap(10)
        assert desk.take(holder="x") == NoPermits(is_final=False)
        give_back_leases(store, [used(lease, 9)])
        assert desk.lease(holder="x").granted == 1

    def test_leases_get_a_cap_without_waiting_for_each_other(
        self, store: Store, desk: Desk
    ) -> None:
        one, two = desk.lease(), desk.lease(holder="x")
        desk.cap(10)
        assert extend_lease(store, used(one, 3), 1) == NoPermits(is_final=False)
        assert extend_lease(store, used(two, 2), 2) == Lease(two.id, 3)
        assert extend_lease(store, used(one, 3), 2) == Lease(one.id, 4)
        assert desk.state == (5, 2, 2)

    def test_a_lease_loses_its_cap_with_the_token(self, store: Store, desk: Desk) -> None:
        desk.cap(10)
        lease = desk.lease(2)
        desk.cap(None)
        assert extend_lease(store, used(lease, 1), 2) == Lease(lease.id, None)
        assert desk.state == (1, 0, 1)


def test_a_lowered_cap_grants_nothing_while_more_is_held(store: Store, desk: Desk) -> None:
    lease = desk.lease(20)
    desk.cap(5)
    assert desk.take() == NoPermits(is_final=False)
    give_back_leases(store, [used(lease, 4)])
    assert desk.lease().granted == 1


def test_a_worker_that_is_gone_is_settled_by_its_ledger(store: Store, desk: Desk) -> None:
    one, two = desk.lease(10), desk.lease(10)
    other = desk.lease(10, holder="x")
    settle_leases(store, [used(two, 3)])
    uses = {one.id: used(one, 4), 999_999: LeaseUse(999_999, 5, 0.0)}
    assert settle_holder(store, uses, host="h", holder="w") == 2  # `two` had no slot any more
    assert desk.state == (7, 10, 1)
    assert holders_of(store, "h") == ["x"]
    assert settle_holder(store, {other.id: used(other, 10)}, host="h2", holder="x") == 0
    assert settle_holder(store, uses, host="h", holder="w") == 0
    assert desk.state == (7, 10, 1)


def test_leases_of_which_nothing_is_known_pass_for_spent(
    store: Store, desk: Desk, add_token: AddToken, now: datetime
) -> None:
    one, _ = desk.lease(10), desk.lease(10)
    free = Desk(store, add_token(max_requests=None)[0], now)
    unlimited = free.lease()
    settle_leases(store, [used(one, 3), used(unlimited, 2)])
    assert write_off_holder(store, host="h", holder="w") == 3
    assert desk.state == (20, 0, 0)
    assert free.state == (2, 0, 0)
    settle_leases(store, [used(one, 9)])
    assert desk.state == (20, 0, 0)


def test_leases_that_the_worker_never_heard_of_are_given_back(
    store: Store, desk: Desk, now: datetime
) -> None:
    known, _ = desk.lease(5), desk.lease(5)
    later = take_lease(
        store, desk.token.id, 5, host="h", holder="w", at=now + timedelta(microseconds=1)
    )
    assert isinstance(later, Lease)
    assert give_back_unknown(store, {known.id}, host="h", holder="w", until=now) == 1
    assert desk.state == (0, 10, 2)
    settle_leases(store, [used(known, 5), used(later, 5)])
    assert desk.state == (10, 0, 2)


def test_settling_names_the_leases_that_are_gone(store: Store, desk: Desk) -> None:
    kept, gone = desk.lease(5), desk.lease(5)
    give_back_leases(store, [used(gone, 1)])
    assert settle_leases(store, [used(kept, 2), used(gone, 3)]) == [gone.id]


def test_requests_of_ended_leases_may_be_taken_back(store: Store, desk: Desk) -> None:
    give_back_leases(store, [used(desk.lease(5), 3)])
    refund_requests(store, {desk.token.id: 1, "another": 1})
    assert desk.state == (2, 0, 0)
    refund_requests(store, {desk.token.id: 9})
    assert desk.state == (0, 0, 0)
