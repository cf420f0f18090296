"""Leases out of the store, for the gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from llm_proxy.grants import Lease, LeaseUse, NoPermits
from llm_proxy.store.database import Store
from llm_proxy.store.leases import (
    extend_lease,
    give_back_leases,
    give_back_unknown,
    refund_requests,
    settle_leases,
    take_lease,
)


class StoreLeaseSource:
    """Every method raises StoreError."""

    def __init__(self, store: Store, host: str, holder: str) -> None:
        self._store = store
        self._host = host
        self._holder = holder
        self._known: set[int] = set()  # leases that were taken and not given back
        self._taking = 0
        self._taken_at = datetime.now(UTC)
        self._may_have_lost = False  # a lease that the store granted and nobody here heard of

    async def take(self, token_id: str, wanted: int) -> Lease | NoPermits | None:
        """None: there is no such token any more."""
        self._taking += 1
        # Later than any before, whatever the clock does: it tells leases that were lost from new.
        self._taken_at = max(datetime.now(UTC), self._taken_at + timedelta(microseconds=1))
        try:
            lease = await self._store.run(
                take_lease,
                token_id,
                wanted,
                host=self._host,
                holder=self._holder,
                at=self._taken_at,
            )
        except BaseException:  # cancelled, too: the store goes on with what it has begun
            self._may_have_lost = True
            raise
        finally:
            self._taking -= 1
        if isinstance(lease, Lease):
            self._known.add(lease.id)
        return lease

    async def extend(self, use: LeaseUse, wanted: int) -> Lease | NoPermits | None:
        """Settles it, too. None: there is no such lease any more, and another may be taken.

        Nothing may be spent meanwhile of a lease without a cap: it may have one afterwards.
        """
        return await self._store.run(extend_lease, use, wanted)

    async def settle(self, uses: Sequence[LeaseUse]) -> Sequence[int]:
        """Tells what was used; the same may be told again. Call it about every second.

        The leases that are gone, by id: others may be taken.
        """
        gone = await self._store.run(settle_leases, uses) if uses else []
        self._known.difference_update(gone)
        await self._give_back_lost()
        return gone

    async def give_back(self, uses: Sequence[LeaseUse]) -> None:
        """Nothing may be spent of these leases any more, nor while this fails and is repeated."""
        if uses:
            await self._store.run(give_back_leases, uses)
            self._known.difference_update(use.lease_id for use in uses)
        await self._give_back_lost()

    async def refund(self, counts: Mapping[str, int]) -> None:
        """So many requests of leases given back were not made, by token id; to be told once."""
        await self._store.run(refund_requests, counts)

    async def _give_back_lost(self) -> None:
        if not self._may_have_lost or self._taking:
            return
        self._may_have_lost = False
        try:
            await self._store.run(
                give_back_unknown,
                frozenset(self._known),
                host=self._host,
                holder=self._holder,
                until=self._taken_at,
            )
        except BaseException:
            self._may_have_lost = True
            raise
