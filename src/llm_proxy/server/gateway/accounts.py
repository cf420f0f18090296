"""What a worker may spend of each token: permits of leases, counted in the ledger.

Spending waits for nothing. A lease is taken, enlarged and given back by tasks, one at a time for
each token; a request that finds no permit is called back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from time import time
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from llm_proxy.errors import LedgerError, Refusal, StoreError, StoreUnavailable
from llm_proxy.grants import Lease, LeaseUse, NoPermits
from llm_proxy.server.ledger import LAST, SLOT_CELLS, USED

logger = logging.getLogger(__name__)

TICK_S: Final = 0.5  # how often `tick` should be called
SETTLE_TICKS: Final = 2  # of these, what is spent is told to the store
PATIENCE_S: Final = 1.2  # for permits that others hold: they give back what they don't use
EXHAUSTED_FOR_S: Final = 1.0  # a spent cap isn't looked at again
REST_S: Final = 60.0  # a lease of a token without a cap is kept so long without use
FIRST_WANTED: Final = 16
MOST_WANTED: Final = 4096  # what the loss of a host can cost a token, for each of its workers

_UNLIMITED: Final = 1 << 62
_NO_SLOT: Final = -1
_REST_TICKS: Final = int(REST_S / TICK_S)
_SOON_S, _LATE_S = 0.5, 5.0  # between two fetches: more should be fetched at once, or less
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.2

Waiter = Callable[[Refusal | None], None]


class LeaseSource(Protocol):
    """Each raises StoreError."""

    async def take(self, token_id: str, wanted: int) -> Lease | NoPermits | None:
        """None: there is no such token."""

    async def extend(self, use: LeaseUse, wanted: int) -> Lease | NoPermits | None:
        """None: there is no such lease any more."""

    async def settle(self, uses: Sequence[LeaseUse]) -> Sequence[int]:
        """The leases that are gone, by id; without any it sees to those that it lost sight of."""

    async def give_back(self, uses: Sequence[LeaseUse]) -> None: ...

    async def refund(self, counts: Mapping[str, int]) -> None:
        """So many requests of leases given back were not made, by token id."""


class Cells(Protocol):
    """The ledger."""

    cells: memoryview

    def open_slot(self, lease_id: int) -> int:
        """Raises LedgerError."""

    def free_slot(self, slot: int) -> None: ...


class Account:
    """One for all snapshots of a token's grant: after a rotation with grace two are in use."""

    __slots__ = (
        "__weakref__",
        "cap",
        "cell",
        "digests",
        "exhausted_until",
        "granted",
        "has_cap",
        "last_used_at",
        "lease_id",
        "low",
        "permits",
        "task",
        "token_id",
        "unsent",
        "used",
        "version",
        "waiters",
        "wanted",
        "wanted_at",
    )

    def __init__(self, token_id: str) -> None:
        self.token_id = token_id
        self.cap: int | None = None  # as of the newest snapshot, to be told
        self.digests: set[bytes] = set()  # of its snapshots, and of those that were let go
        self.permits = 0
        self.low = 0  # at fewer permits than that more are fetched
        self.lease_id = 0  # 0: none
        self.used = 0  # requests since the lease was taken
        self.unsent = 0  # of these, may still be refunded
        self.cell = 0  # of the ledger, that holds the same
        self.last_used_at = 0.0  # Unix seconds; 0: never
        self.granted = 0
        self.has_cap = True
        self.wanted = FIRST_WANTED
        self.wanted_at = 0.0
        self.exhausted_until = 0.0  # on the loop's clock
        self.version = 0  # rises when nothing may be spent any more on what was granted before
        self.task: asyncio.Task[None] | None = None
        self.waiters: list[Waiter] = []


class _Owed:
    """A lease that is to be given back."""

    __slots__ = ("refunded", "slot", "token_id", "use")

    def __init__(self, use: LeaseUse, token_id: str, slot: int = _NO_SLOT) -> None:
        self.use = use
        self.token_id = token_id
        self.slot = slot
        self.refunded = 0  # requests of which nothing left, since `use` was read


class Accounts:
    def __init__(self, source: LeaseSource, ledger: Cells) -> None:
        self._source = source
        self._ledger = ledger
        self._cells = ledger.cells
        self._loop = asyncio.get_running_loop()
        self._all: WeakValueDictionary[str, Account] = WeakValueDictionary()
        self._open: dict[str, Account] = {}  # with a lease
        self._spent: dict[Account, None] = {}  # from since the last tick
        self._warm: dict[Account, None] = {}  # as it was at the last tick
        self._unsettled: dict[Account, None] = {}
        self._owed: dict[int, _Owed] = {}  # leases to give back, by id
        self._refunds: dict[str, int] = {}
        self._handing_in = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticks = 0
        self._is_failing = False  # the store, at the last time it was told
        self.is_store_lost = False  # nothing is asked of it then, and nothing given back

    def of(self, token_id: str) -> Account:
        account = self._all.get(token_id)
        if account is None:
            account = self._all[token_id] = Account(token_id)
        return account

    # On the path of requests.

    def spend(self, account: Account, now: float) -> int:
        """One of its permits, of which there must be one; the lease it came from. `now` is in Unix
        seconds. `sent` or `refund` must follow."""
        account.permits -= 1
        account.unsent += 1
        account.used = used = account.used + 1
        self._cells[account.cell] = used
        account.last_used_at = now
        self._spent[account] = None
        if account.permits < account.low and account.task is None and not self.is_store_lost:
            self._fetch(account)
        return account.lease_id

    def sent(self, account: Account) -> None:
        """The upstream may see something of the request: its permit is spent for good."""
        account.unsent -= 1

    def refund(self, account: Account, lease_id: int) -> None:
        """Takes back a permit that came from this lease, for a request of which nothing left."""
        account.unsent -= 1
        if lease_id == account.lease_id:
            account.permits += 1
            account.used -= 1
            self._cells[account.cell] = account.used
            self._spent[account] = None
        elif lease_id in self._owed:
            self._owed[lease_id].refunded += 1
        else:
            self._refunds[account.token_id] = self._refunds.get(account.token_id, 0) + 1

    def want(self, account: Account, waiter: Waiter) -> None:
        """Calls back when there are permits, or with the reason why not. Raises Refusal."""
        if account.exhausted_until > self._loop.time():
            raise exhausted(account.cap)
        if self.is_store_lost:
            raise store_unavailable()
        account.waiters.append(waiter)
        if account.task is None:
            self._fetch(account)

    def forget(self, account: Account, waiter: Waiter) -> None:
        if waiter in account.waiters:
            account.waiters.remove(waiter)

    # What goes on beside.

    def void(self, token_id: str) -> Collection[bytes]:
        """From now on nothing is spent on what was granted before; the digests of its snapshots."""
        account = self._all.get(token_id)
        if account is None:
            return ()
        account.version += 1
        account.exhausted_until = 0.0
        if account.lease_id:
            self._close_lease(account)
            self._start(self._hand_in_soon())
        digests, account.digests = account.digests, set()
        return digests

    def lose_store(self) -> None:
        """Whoever waits for it is refused."""
        self.is_store_lost = True
        for account in tuple(self._all.values()):
            waiters, account.waiters = account.waiters, []
            for waiter in waiters:
                waiter(store_unavailable())

    async def tick(self) -> None:
        """Tells the store what was spent, and gives back what nobody uses."""
        if self.is_store_lost:
            return
        self._ticks += 1
        self._close_idle()
        try:
            asked = [await self._hand_in(), await self._give_refunds()]
            if self._ticks % SETTLE_TICKS == 0:
                asked.append(await self._settle())
        except StoreError as exc:
            if not self._is_failing:
                logger.error("usage can't be recorded, keeping it until it can: %s", exc)
            self._is_failing = True
        else:
            self._is_failing = self._is_failing and not any(asked)

    async def close(self) -> None:
        """Gives back every lease. What fails stays in the ledger, for the supervisor."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.is_store_lost:
            logger.warning("the database is away: leases are left to the supervisor")
            return
        for account in tuple(self._open.values()):
            self._close_lease(account)
        try:
            await self._hand_in()
            await self._give_refunds()
        except StoreError as exc:
            logger.error("leases can't be given back, leaving them to the supervisor: %s", exc)

    def _close_idle(self) -> None:
        spent, self._spent = self._spent, {}
        for account in spent:
            self._cells[account.cell - USED + LAST] = int(account.last_used_at * 1000)
        idle = [account for account in self._warm if account.has_cap and account not in spent]
        self._warm = spent
        self._unsettled.update(spent)
        if self._ticks % _REST_TICKS == 0:
            rested = time() - REST_S
            idle += [
                account
                for account in self._open.values()
                if not account.has_cap and account.last_used_at < rested
            ]
        for account in idle:
            # A refund to a lease that is open is in the ledger, whatever becomes of the store.
            if account.task is not None or account.unsent:
                self._warm[account] = None
            elif account.lease_id:
                self._close_lease(account)

    # These three say whether there was anything to tell, and raise StoreError.

    async def _settle(self) -> bool:
        unsettled, self._unsettled = self._unsettled, {}
        held = {account.lease_id: account for account in unsettled if account.lease_id}
        if not held:
            await self._source.settle([])
            return False
        try:
            gone = await self._source.settle([self._use(account) for account in held.values()])
        except StoreError:
            self._unsettled = unsettled | self._unsettled
            raise
        for lease_id in gone:
            if (account := held[lease_id]).lease_id == lease_id:
                account.version += 1  # what is being fetched may be of that lease
                self._close_lease(account)
        return True

    async def _hand_in(self) -> bool:
        async with self._handing_in:
            owed = list(self._owed.values())
            if not owed:
                return False
            await self._source.give_back([one.use for one in owed])
            for one in owed:
                del self._owed[one.use.lease_id]
                if one.refunded:
                    self._refunds[one.token_id] = self._refunds.get(one.token_id, 0) + one.refunded
                if one.slot != _NO_SLOT:
                    self._ledger.free_slot(one.slot)
            return True

    async def _give_refunds(self) -> bool:
        refunds, self._refunds = self._refunds, {}
        if refunds:
            await self._source.refund(refunds)  # once: told twice, it would be counted twice
        return bool(refunds)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _hand_in_soon(self) -> None:
        with contextlib.suppress(StoreError):  # the next tick tries again
            await self._hand_in()

    def _fetch(self, account: Account) -> None:
        now = self._loop.time()
        if now - account.wanted_at < _SOON_S:
            account.wanted = min(account.wanted * 2, MOST_WANTED)
        elif now - account.wanted_at > _LATE_S:
            account.wanted = max(account.wanted // 2, FIRST_WANTED)
        account.wanted_at = now
        account.task = self._start(self._serve(account))

    async def _serve(self, account: Account) -> None:
        """Fetches permits, once, for those who wait and those to come."""
        # Also what the waiters get should this task end in a way that nobody foresaw.
        refusal: Refusal | None = store_unavailable()
        try:
            refusal = await self._obtain(account)
        except StoreError as exc:
            logger.warning("permits could not be fetched: %s", exc)
        finally:
            account.task = None
            if refusal is None:
                while account.waiters and account.permits > 0:
                    account.waiters.pop(0)(None)
                if account.waiters and account.task is None:
                    self._fetch(account)
            else:
                waiters, account.waiters = account.waiters, []
                for waiter in waiters:
                    waiter(refusal)

    async def _obtain(self, account: Account) -> Refusal | None:
        """None: it has permits now. Raises StoreError."""
        until = self._loop.time() + PATIENCE_S
        pause_s = _FIRST_PAUSE_S
        while True:
            version = account.version
            reply = await self._ask(account)
            if account.version != version:
                if isinstance(reply, Lease) and reply.id not in self._owed:
                    self._owe_unopened(reply, account)
            elif isinstance(reply, Lease):
                self._open_lease(account, reply)
                return None
            elif reply is None:
                return gone()
            elif reply.is_final:
                account.exhausted_until = self._loop.time() + EXHAUSTED_FOR_S
                return exhausted(account.cap)
            if self._loop.time() > until:
                return held_elsewhere()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _ask(self, account: Account) -> Lease | NoPermits | None:
        wanted = max(account.wanted, len(account.waiters))
        lease_id = account.lease_id
        if lease_id:
            reply = await self._source.extend(self._use(account), wanted)
            if reply is not None or account.lease_id != lease_id:
                return reply
            self._close_lease(account)
        await self._hand_in()  # what it holds itself of the token comes first
        return await self._source.take(account.token_id, wanted)

    def _use(self, account: Account) -> LeaseUse:
        return LeaseUse(account.lease_id, account.used, account.last_used_at)

    def _open_lease(self, account: Account, lease: Lease) -> None:
        if lease.id != account.lease_id:
            try:
                slot = self._ledger.open_slot(lease.id)
            except LedgerError as exc:
                self._owe_unopened(lease, account)
                raise StoreUnavailable(str(exc)) from exc
            self._cells = self._ledger.cells
            account.lease_id, account.cell = lease.id, slot * SLOT_CELLS + USED
            account.granted = account.used = 0
            self._open[account.token_id] = account
        if lease.granted is None:
            account.has_cap, account.permits, account.low = False, _UNLIMITED, 0
        else:
            more = lease.granted - account.granted
            account.has_cap, account.granted = True, lease.granted
            account.permits += more
            account.low = more // 4
        self._spent[account] = None  # so that it is missed when nobody uses it

    def _owe_unopened(self, lease: Lease, account: Account) -> None:
        self._owed[lease.id] = _Owed(LeaseUse(lease.id, 0, 0.0), account.token_id)

    def _close_lease(self, account: Account) -> None:
        """It is to be given back; nothing is spent from it any more."""
        use, slot = self._use(account), account.cell // SLOT_CELLS
        self._owed[account.lease_id] = _Owed(use, account.token_id, slot)
        account.lease_id = account.granted = account.permits = account.low = 0
        del self._open[account.token_id]
        for group in (self._spent, self._warm, self._unsettled):
            group.pop(account, None)


def exhausted(cap: int | None) -> Refusal:
    return Refusal(
        "token_quota_exhausted",
        f"The requests that this token was good for ({cap}) are used up; ask for a new one.",
        details={"max_requests": cap},
        headers={"x-should-retry": "false"},  # else the SDKs repeat any 429
    )


def held_elsewhere() -> Refusal:
    return Refusal(
        "token_quota_exhausted",
        "The last requests that this token is good for are being used; try again in a second.",
        headers={"Retry-After": "1"},
    )


def gone() -> Refusal:
    return Refusal("invalid_token", "This token is unknown here; check that it was copied whole.")


def store_unavailable() -> Refusal:
    return Refusal(
        "store_unavailable",
        "The token can't be checked now; try again soon.",
        headers={"Retry-After": "1"},
    )
