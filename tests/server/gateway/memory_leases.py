"""A LeaseSource that grants like the store, fails when told, and waits while held."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_proxy.errors import LedgerError, StoreError
from llm_proxy.grants import Lease, LeaseUse, NoPermits
from llm_proxy.server.ledger import LAST, SLOT_CELLS, USED


@dataclass
class HeldLease:
    token_id: str
    granted: int | None
    settled: int = 0


class MemoryLedger:
    def __init__(self, slots: int = 16) -> None:
        self.cells = memoryview(bytearray(slots * SLOT_CELLS * 8)).cast("Q")
        self._free = list(range(slots))

    def open_slot(self, lease_id: int) -> int:
        if not self._free:
            raise LedgerError("the ledger is full")
        slot = self._free.pop(0)
        base = slot * SLOT_CELLS
        self.cells[base] = lease_id
        self.cells[base + USED] = self.cells[base + LAST] = 0
        return slot

    def free_slot(self, slot: int) -> None:
        self.cells[slot * SLOT_CELLS] = 0
        self._free.append(slot)


class MemoryLeases:
    def __init__(self) -> None:
        self.caps: dict[str, int | None] = {}
        self.counts: Counter[str] = Counter()
        self.last_used_at: dict[str, float] = {}
        self.held: dict[int, HeldLease] = {}
        self.calls: list[str] = []
        self.looks = 0  # settlings of nothing
        self.failure: StoreError | None = None
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.is_asked = asyncio.Event()
        self._last_id = 0

    async def take(self, token_id: str, wanted: int) -> Lease | NoPermits | None:
        await self._begin("take")
        if token_id not in self.caps:
            return None
        granted = self._permits(token_id, wanted)
        if isinstance(granted, NoPermits):
            return granted
        self._last_id += 1
        self.held[self._last_id] = HeldLease(token_id, granted)
        return Lease(self._last_id, granted)

    async def extend(self, use: LeaseUse, wanted: int) -> Lease | NoPermits | None:
        await self._begin("extend")
        self._settle(use)
        lease = self.held.get(use.lease_id)
        if lease is None:
            return None
        more = self._permits(lease.token_id, wanted)
        if isinstance(more, NoPermits):
            return more
        lease.granted = None if more is None else (lease.granted or 0) + more
        return Lease(use.lease_id, lease.granted)

    async def settle(self, uses: Sequence[LeaseUse]) -> Sequence[int]:
        if not uses:
            self.looks += 1
            return []
        await self._begin("settle")
        for use in uses:
            self._settle(use)
        return [use.lease_id for use in uses if use.lease_id not in self.held]

    async def give_back(self, uses: Sequence[LeaseUse]) -> None:
        await self._begin("give_back")
        for use in uses:
            self._settle(use, is_last=True)
            self.held.pop(use.lease_id, None)

    async def refund(self, counts: Mapping[str, int]) -> None:
        await self._begin("refund")
        for token_id, count in counts.items():
            self.counts[token_id] -= count

    async def _begin(self, call: str) -> None:
        self.calls.append(call)
        self.is_asked.set()
        await asyncio.sleep(0)
        await self.may_go_on.wait()
        if self.failure is not None:
            raise self.failure

    def _permits(self, token_id: str, wanted: int) -> int | None | NoPermits:
        cap = self.caps[token_id]
        if cap is None:
            return None
        reserved = sum(
            lease.granted - lease.settled
            for lease in self.held.values()
            if lease.token_id == token_id and lease.granted is not None
        )
        remaining = cap - self.counts[token_id] - reserved
        if remaining <= 0:
            return NoPermits(is_final=reserved == 0)
        return min(wanted, max(1, remaining // 4))

    def _settle(self, use: LeaseUse, *, is_last: bool = False) -> None:
        lease = self.held.get(use.lease_id)
        if lease is None or (use.used <= lease.settled and not is_last):
            return
        self.counts[lease.token_id] += use.used - lease.settled
        lease.settled = use.used
        self.last_used_at[lease.token_id] = use.last_used_at
