"""Leases: permits of a token that a worker holds, and what became of them.

Of a token with a cap, `reserved` is what its leases hold and have not spent by the last word, so
`request_count + reserved <= max_requests` is all that has to hold when one is granted more. What
concerns a lease that is gone is passed over: what it held was counted when it went.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

import peewee

from llm_proxy.grants import Lease, LeaseUse, NoPermits
from llm_proxy.store.database import Store
from llm_proxy.store.models import LeaseRow, TokenRow
from llm_proxy.store.opening import Database
from llm_proxy.store.timestamps import to_stored

_Id = TypeVar("_Id", int, str)
_AT_ONCE: Final = 50  # rows in a statement
_SHARE: Final = 4  # of what remains, a lease gets one part, so that all workers find some

_TOKEN = "SELECT max_requests, request_count, reserved FROM tokens WHERE id = ?"
_OTHERS_WITHOUT_CAP = """
SELECT COUNT(*) FROM leases WHERE token_id = ? AND id <> ? AND granted IS NULL
"""
_OPEN = "SELECT id, token_id, granted, settled FROM leases WHERE "
_TAKEN_UNTIL = "host = ? AND holder = ? AND taken_at <= ?"
_REFUND = """
UPDATE tokens SET request_count = CASE WHEN request_count > ? THEN request_count - ? ELSE 0 END
WHERE id = ?
"""
# Of many rows at once: a database on another machine takes as long for each statement as for one.
_ENTER = """
UPDATE tokens SET
    request_count = request_count + {counted},
    reserved = CASE WHEN reserved > {released} THEN reserved - {released} ELSE 0 END,
    last_used_at = CASE WHEN COALESCE(last_used_at, '') < {used_at} THEN {used_at}
                   ELSE last_used_at END
WHERE id IN ({ids})
"""
_SETTLED = "UPDATE leases SET settled = {used} WHERE id IN ({ids})"
_DELETED = "DELETE FROM leases WHERE id IN ({ids})"
_GRANTED = "UPDATE leases SET granted = ? WHERE id = ?"


class OpenLease(NamedTuple):
    id: int
    token_id: str
    granted: int | None
    settled: int

    def unspent(self, used: int) -> int:
        return 0 if self.granted is None else max(0, self.granted - used)


@dataclass(slots=True)
class _Account:
    """What leases of one token add up to."""

    counted: int = 0  # more requests than the store knew of
    released: int = 0  # permits that are reserved no more
    last_used_at: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.counted or self.released or self.last_used_at)

    @property
    def stored_use(self) -> str:
        if not self.last_used_at:
            return ""
        return to_stored(datetime.fromtimestamp(self.last_used_at, UTC))


def take_lease(
    store: Store, token_id: str, wanted: int, *, host: str, holder: str, at: datetime
) -> Lease | NoPermits | None:
    """None: there is no such token."""
    with store.writing() as database:
        granted = _permits(database, token_id, wanted, lease_id=0)
        if granted is None or isinstance(granted, NoPermits):
            return granted
        lease_id = LeaseRow.insert(
            token_id=token_id,
            host=host,
            holder=holder,
            granted=granted.number,
            taken_at=to_stored(at),
        ).execute(database)
    return Lease(lease_id, granted.number)


def extend_lease(store: Store, use: LeaseUse, wanted: int) -> Lease | NoPermits | None:
    """Settles it first. None: there is no such lease any more, and another may be taken.

    A lease without a cap gets one when its token did: spend nothing of it meanwhile.
    """
    with store.writing() as database:
        _settle(database, [use])
        lease = next(_open(database, [use.lease_id]), None)
        if lease is None:
            return None
        if lease.granted is None:
            # No permit of it is left; so two workers that come with such leases don't wait in vain.
            database.sql(_GRANTED, (lease.settled, lease.id))
            lease = lease._replace(granted=lease.settled)
        more = _permits(database, lease.token_id, wanted, lease_id=lease.id)
        if more is None or isinstance(more, NoPermits):
            return more
        if more.number is None:
            account = _Account(released=lease.unspent(lease.settled))
            _enter(database, {lease.token_id: account})
        assert lease.granted is not None
        granted = None if more.number is None else lease.granted + more.number
        database.sql(_GRANTED, (granted, lease.id))
    return Lease(lease.id, granted)


def settle_leases(store: Store, uses: Sequence[LeaseUse]) -> list[int]:
    """Counts what was used. Told twice, or late, changes nothing: what was used only rises.

    The leases that are gone, by id.
    """
    with store.writing() as database:
        known = _settle(database, uses)
    return [use.lease_id for use in uses if use.lease_id not in known]


def refund_requests(store: Store, counts: Mapping[str, int]) -> None:
    """Of leases that have ended, by token id; told twice, it would be counted twice."""
    with store.writing() as database:
        for token_id, count in counts.items():
            database.sql(_REFUND, (count, count, token_id))


def give_back_leases(store: Store, uses: Sequence[LeaseUse]) -> None:
    """Ends leases: this word about them is the last, so it may be less than one before."""
    by_id = {use.lease_id: use for use in uses}
    with store.writing() as database:
        _end(database, _open(database, list(by_id)), by_id)


def settle_holder(store: Store, uses: Mapping[int, LeaseUse], *, host: str, holder: str) -> int:
    """Ends all leases of a worker that is gone; those not in `uses` were never spent. How many."""
    with store.writing() as database:
        leases = _held(database, host, holder)
        never = {lease.id: LeaseUse(lease.id, lease.settled, 0.0) for lease in leases}
        return _end(database, leases, {**never, **uses})


def write_off_holder(store: Store, *, host: str, holder: str) -> int:
    """Ends all leases of a worker of which nothing is known, as if all was spent. How many."""
    with store.writing() as database:
        return write_off(database, _held(database, host, holder))


def give_back_unknown(
    store: Store, known: Collection[int], *, host: str, holder: str, until: datetime
) -> int:
    """Ends leases that a worker took until then without hearing of it, so never spent. How many."""
    with store.writing() as database:
        rows = database.sql(_OPEN + _TAKEN_UNTIL, (host, holder, to_stored(until)))
        leases = [lease for row in rows if (lease := OpenLease(*row)).id not in known]
        return _end(database, leases, {lease.id: LeaseUse(lease.id, 0, 0.0) for lease in leases})


def holders_of(store: Store, host: str) -> list[str]:
    """Who holds leases there."""
    with store.reading() as database:
        rows = database.sql("SELECT DISTINCT holder FROM leases WHERE host = ?", (host,))
    return [holder for (holder,) in rows]


def write_off(database: Database, leases: Sequence[OpenLease]) -> int:
    spent = {lease.id: lease.settled + lease.unspent(lease.settled) for lease in leases}
    uses = {lease_id: LeaseUse(lease_id, used, 0.0) for lease_id, used in spent.items()}
    return _end(database, leases, uses)


def leases_of_host(database: Database, host: str) -> list[OpenLease]:
    return [OpenLease(*row) for row in database.sql(_OPEN + "host = ?", (host,))]


def _held(database: Database, host: str, holder: str) -> list[OpenLease]:
    rows = database.sql(_OPEN + "host = ? AND holder = ?", (host, holder))
    return [OpenLease(*row) for row in rows]


class _Granted(NamedTuple):
    number: int | None  # None: there is no cap


def _permits(
    database: Database, token_id: str, wanted: int, *, lease_id: int
) -> _Granted | NoPermits | None:
    """Reserves permits for a lease, which may be one that exists already."""
    rows = database.sql(_TOKEN, (token_id,))
    if not rows:
        return None
    cap, count, reserved = rows[0]
    if cap is None:
        return _Granted(None)
    # What leases without a cap have spent isn't known yet: they are from before there was one.
    if database.sql(_OTHERS_WITHOUT_CAP, (token_id, lease_id)) != [(0,)]:
        return NoPermits(is_final=False)
    remaining = cap - count - reserved
    number = min(wanted, max(1, remaining // _SHARE))
    if remaining <= 0 or not _reserve(database, token_id, number):
        return NoPermits(is_final=reserved == 0)
    return _Granted(number)


def _reserve(database: Database, token_id: str, number: int) -> bool:
    """The cap's own rule, whatever was read before."""
    total = TokenRow.request_count + TokenRow.reserved + number
    reserve = TokenRow.update({TokenRow.reserved: TokenRow.reserved + number})
    fits: peewee.Expression = (TokenRow.id == token_id) & (total <= TokenRow.max_requests)
    return bool(reserve.where(fits).execute(database))


def _open(database: Database, lease_ids: Sequence[int]) -> Iterator[OpenLease]:
    for part in _parts(lease_ids):
        for row in database.sql(f"{_OPEN}id IN ({_marks(part)})", part):
            yield OpenLease(*row)


def _settle(database: Database, uses: Sequence[LeaseUse]) -> set[int]:
    """The leases that there are, by id."""
    by_id = {use.lease_id: use for use in uses}
    accounts: dict[str, _Account] = {}
    risen: dict[int, int] = {}
    leases = list(_open(database, list(by_id)))
    for lease in leases:
        use = by_id[lease.id]
        account = accounts.setdefault(lease.token_id, _Account())
        account.last_used_at = max(account.last_used_at, use.last_used_at)
        if use.used > lease.settled:
            account.counted += use.used - lease.settled
            account.released += lease.unspent(lease.settled) - lease.unspent(use.used)
            risen[lease.id] = use.used
    _settle_rows(database, risen)
    _enter(database, accounts)
    return {lease.id for lease in leases}


def _end(database: Database, leases: Iterable[OpenLease], uses: Mapping[int, LeaseUse]) -> int:
    accounts: dict[str, _Account] = {}
    ended = list(leases)
    for lease in ended:
        use = uses[lease.id]
        account = accounts.setdefault(lease.token_id, _Account())
        account.counted += use.used - lease.settled
        account.released += lease.unspent(lease.settled)
        account.last_used_at = max(account.last_used_at, use.last_used_at)
    for part in _parts([lease.id for lease in ended]):
        database.sql(_DELETED.format(ids=_marks(part)), part)
    _enter(database, accounts)
    return len(ended)


def _settle_rows(database: Database, used: Mapping[int, int]) -> None:
    for ids in _parts(list(used)):
        values = [word for lease_id in ids for word in (lease_id, used[lease_id])]
        statement = _SETTLED.format(used=_chosen(ids, "settled"), ids=_marks(ids))
        database.sql(statement, [*values, *ids])


def _enter(database: Database, accounts: Mapping[str, _Account]) -> None:
    for ids in _parts([token_id for token_id, account in accounts.items() if account]):
        counted = [word for each in ids for word in (each, accounts[each].counted)]
        released = [word for each in ids for word in (each, accounts[each].released)]
        used_at = [word for each in ids for word in (each, accounts[each].stored_use)]
        statement = _ENTER.format(
            counted=_chosen(ids, "0"),
            released=_chosen(ids, "0"),
            used_at=_chosen(ids, "''"),
            ids=_marks(ids),
        )
        database.sql(statement, [*counted, *released, *released, *used_at, *used_at, *ids])


def _parts(ids: Sequence[_Id]) -> Iterator[Sequence[_Id]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))


def _marks(ids: Sequence[object]) -> str:
    return ", ".join("?" * len(ids))


def _chosen(ids: Sequence[object], otherwise: str) -> str:
    """The value that belongs to a row's id; parameters are ids and values in turn."""
    return f"CASE id {'WHEN ? THEN ? ' * len(ids)}ELSE {otherwise} END"
