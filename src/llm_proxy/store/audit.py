"""The audit log: records in chains, one for each server, and where each chain ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from llm_proxy.audit import AuditEntry, AuditRecord, Head, head_of, seal
from llm_proxy.audit_chain import ChainCheck, Verdict
from llm_proxy.store.database import Store
from llm_proxy.store.models import AuditChainRow, AuditRow, TokenRow
from llm_proxy.store.opening import Database
from llm_proxy.store.timestamps import to_stored

_PLACE = "the database"
_MOST_AT_ONCE = 200  # records read or deleted in one transaction


class ChainState(NamedTuple):
    chain: str
    head: Head
    kept_from: int  # sequence of the first record that is in the table still


def append_entries(
    store: Store, chain: str, entries: Sequence[AuditEntry], *, at: datetime
) -> list[AuditRecord]:
    """Within another transaction they are part of that: recorded when it is done, or neither."""
    with store.writing() as database:
        state = _state(database, chain)
        head, records = state.head, []
        for entry in entries:
            entry = _with_project(database, entry)
            record = seal(entry, head, chain=chain, timestamp=to_stored(at))
            AuditRow.insert(**_columns(record)).execute(database)
            head = head_of(record)
            records.append(record)
        _move_head(database, chain, head)
    return records


def _with_project(database: Database, entry: AuditEntry) -> AuditEntry:
    """A record of a token names its project, too."""
    if entry.token_id is None or entry.project_id is not None:
        return entry
    query = TokenRow.select(TokenRow.project_id).where(TokenRow.id == entry.token_id)
    return msgspec.structs.replace(entry, project_id=query.scalar(database))


def chain_state(store: Store, chain: str) -> ChainState:
    with store.reading() as database:
        return _state(database, chain)


def chain_states(store: Store) -> list[ChainState]:
    """Of every server that ever wrote here."""
    with store.reading() as database:
        rows = AuditChainRow.select().order_by(AuditChainRow.chain).execute(database)
        return [_state_of(row) for row in rows]


def records_after(store: Store, chain: str, sequence: int) -> list[AuditRecord]:
    """The next of a chain, in order, and not too many of them; [] when there are none."""
    query = (
        AuditRow.select()
        .where((AuditRow.chain == chain) & (AuditRow.sequence > sequence))
        .order_by(AuditRow.sequence)
        .limit(_MOST_AT_ONCE)
    )
    with store.reading() as database:
        return [record_of(row) for row in query.execute(database)]


def adopt_records(store: Store, records: Sequence[AuditRecord]) -> None:
    """Those of a chain that go on where the database ends, as after it came from a backup."""
    with store.writing() as database:
        for record in records:
            AuditRow.insert(**_columns(record)).execute(database)
        last = records[-1]
        _move_head(database, last.chain, head_of(last), kept_from=records[0].sequence)


def forget_through(store: Store, chain: str, sequence: int) -> bool:
    """Deletes records up to this one, the oldest first; whether there may be more."""
    with store.writing() as database:
        state = _state(database, chain)
        last = min(sequence, state.head.sequence, state.kept_from + _MOST_AT_ONCE - 1)
        if last < state.kept_from:
            return False
        AuditRow.delete().where((AuditRow.chain == chain) & (AuditRow.sequence <= last)).execute(
            database
        )
        AuditChainRow.update(kept_from=last + 1).where(AuditChainRow.chain == chain).execute(
            database
        )
        return last < min(sequence, state.head.sequence)


def forget_older(store: Store, chain: str, before: datetime) -> bool:
    """Deletes the records from before that time; whether there may be more."""
    with store.reading() as database:
        state = _state(database, chain)
        young = (AuditRow.chain == chain) & (AuditRow.timestamp >= to_stored(before))
        # A chain is only ever cut at its start, whatever the clock did meanwhile.
        first = AuditRow.select(AuditRow.sequence).where(young).order_by(AuditRow.sequence)
        kept: int | None = first.limit(1).scalar(database)
    return forget_through(store, chain, state.head.sequence if kept is None else kept - 1)


async def verify_chain(store: Store, state: ChainState) -> Verdict:
    """Against its end as stored; a part at a time, so that others get their turn."""
    before = await store.run(_head_before, state)
    check = ChainCheck(f"{_PLACE}, chain {state.chain}", before=before)
    sequence = state.kept_from - 1
    while sequence < state.head.sequence:
        records = await store.run(records_after, state.chain, sequence)
        records = [record for record in records if record.sequence <= state.head.sequence]
        if not all(check.take(record, _PLACE) for record in records) or not records:
            break
        sequence = records[-1].sequence
    return check.verdict(state.head if state.kept_from <= state.head.sequence else None)


def _head_before(store: Store, state: ChainState) -> Head:
    """What the first kept record must follow: its own word for the hash once others are gone."""
    if state.kept_from == 1:
        return Head()
    query = AuditRow.select(AuditRow.previous_hash).where(
        (AuditRow.chain == state.chain) & (AuditRow.sequence == state.kept_from)
    )
    with store.reading() as database:
        previous: str | None = query.scalar(database)
    return Head(state.kept_from - 1, previous or "")


def record_of(row: AuditRow) -> AuditRecord:
    columns: dict[str, Any] = dict(row.__data__)
    columns["details"] = _details_of(row.details)
    return AuditRecord(**columns)


def _details_of(stored: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(stored, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):  # somebody altered it, as the hash will tell
        return {"unreadable": stored}


def _columns(record: AuditRecord) -> dict[str, Any]:
    details = msgspec.json.encode(record.details, order="sorted").decode()
    return {**msgspec.structs.asdict(record), "details": details}


def _state(database: Database, chain: str) -> ChainState:
    query = AuditChainRow.select().where(AuditChainRow.chain == chain)
    row = query.first(database)
    return ChainState(chain, Head(), 1) if row is None else _state_of(row)


def _state_of(row: AuditChainRow) -> ChainState:
    return ChainState(row.chain, Head(row.sequence, row.hash), row.kept_from)


def _move_head(database: Database, chain: str, head: Head, *, kept_from: int = 1) -> None:
    """`kept_from` is that of a chain that begins here."""
    columns = {AuditChainRow.sequence: head.sequence, AuditChainRow.hash: head.hash}
    known = AuditChainRow.chain == chain
    if not AuditChainRow.update(columns).where(known).execute(database):
        AuditChainRow.insert(
            chain=chain, sequence=head.sequence, hash=head.hash, kept_from=kept_from
        ).execute(database)
