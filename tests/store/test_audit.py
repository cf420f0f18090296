from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llm_proxy.audit import FIRST_HASH, AuditEntry, AuditRecord, Head, head_of, seal
from llm_proxy.audit_chain import Verdict
from llm_proxy.store.audit import (
    adopt_records,
    append_entries,
    chain_state,
    chain_states,
    forget_older,
    forget_through,
    records_after,
    verify_chain,
)
from llm_proxy.store.database import Store

pytestmark = pytest.mark.anyio

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)


def entry(action: str = "token.create", **fields: Any) -> AuditEntry:
    return AuditEntry(action=action, actor="system", outcome="success", **fields)


def add(store: Store, count: int = 1, *, chain: str = "one", at: datetime = NOW) -> None:
    append_entries(store, chain, [entry()] * count, at=at)


async def verify(store: Store, chain: str = "one") -> Verdict:
    return await verify_chain(store, chain_state(store, chain))


def alter(store: Store, statement: str, *parameters: object) -> None:
    with store.writing() as database:
        database.sql(statement, parameters)


def test_what_is_appended_is_read_back_as_it_was_sealed(store: Store) -> None:
    details = {"fields": ["name", "é"], "count": 2}
    said = entry(client_ip="::1", path="/manage", reason="x", details=details)
    written = append_entries(store, "one", [said, entry()], at=NOW)
    assert records_after(store, "one", 0) == written
    assert [record.sequence for record in written] == [1, 2]
    assert written[0].previous_hash == FIRST_HASH
    assert written[1].previous_hash == written[0].hash
    assert chain_state(store, "one") == ("one", head_of(written[1]), 1)


def test_each_server_has_a_chain_of_its_own(store: Store) -> None:
    add(store, 2, chain="one")
    add(store, 1, chain="two")
    assert [(s.chain, s.head.sequence) for s in chain_states(store)] == [("one", 2), ("two", 1)]
    assert len(records_after(store, "two", 0)) == 1


def test_record_of_a_token_names_its_project(
    store: Store, add_token: Callable[..., tuple[Any, bytes]]
) -> None:
    token, _ = add_token()
    found, lost = append_entries(
        store, "one", [entry(token_id=token.id), entry(token_id="gone")], at=NOW
    )
    assert found.project_id == token.project_id
    assert lost.project_id is None


def test_record_shares_the_fate_of_the_transaction_around_it(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writing():
        add(store)
        raise RuntimeError
    assert records_after(store, "one", 0) == []
    assert chain_state(store, "one").head == Head()


async def test_sound_chain_is_verified_in_parts(store: Store) -> None:
    add(store, 450)
    verdict = await verify(store)
    assert verdict.fault is None
    assert (verdict.records, verdict.first, verdict.last) == (450, 1, 450)
    assert verdict.head_hash == chain_state(store, "one").head.hash


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE audit_records SET client_ip = 'x' WHERE sequence = 3", "changed"),
        ("UPDATE audit_records SET details = '{\"a\":1}' WHERE sequence = 3", "changed"),
        ("UPDATE audit_records SET details = '[1]' WHERE sequence = 3", "changed"),
        ("UPDATE audit_records SET details = '{' WHERE sequence = 3", "changed"),
        ("UPDATE audit_records SET hash = previous_hash WHERE sequence = 3", "changed"),
        ("DELETE FROM audit_records WHERE sequence = 3", "removed"),
        ("DELETE FROM audit_records WHERE sequence = 1", "removed"),
        ("DELETE FROM audit_records WHERE sequence >= 4", "truncated"),
        ("DELETE FROM audit_records", "truncated"),
        ("UPDATE audit_chains SET hash = 'x'", "changed"),
    ],
)
async def test_tampering_is_found(store: Store, statement: str, kind: str) -> None:
    add(store, 5)
    alter(store, statement)
    fault = (await verify(store)).fault
    assert fault is not None
    assert fault.kind == kind


async def test_chain_goes_on_after_its_beginning_is_forgotten(store: Store) -> None:
    add(store, 3, at=NOW - timedelta(days=2))
    add(store, 2, at=NOW)
    assert not forget_older(store, "one", NOW - timedelta(days=1))
    verdict = await verify(store)
    assert verdict.fault is None
    assert (verdict.first, verdict.records) == (4, 2)
    assert not forget_older(store, "one", NOW + timedelta(days=1))
    assert records_after(store, "one", 0) == []
    assert (await verify(store)).fault is None
    add(store)
    assert (await verify(store)).first == 6


async def test_more_than_was_forgotten_in_order_is_missed(store: Store) -> None:
    add(store, 5)
    forget_through(store, "one", 2)
    alter(store, "DELETE FROM audit_records WHERE sequence = 3")
    fault = (await verify(store)).fault
    assert fault is not None
    assert fault.kind == "removed"


def test_much_is_forgotten_in_batches(store: Store) -> None:
    add(store, 450)
    rounds = 1
    while forget_through(store, "one", 420):
        rounds += 1
    assert rounds == 3
    assert records_after(store, "one", 0)[0].sequence == 421
    assert not forget_through(store, "one", 420)


def test_a_clock_that_went_back_cuts_no_hole(store: Store) -> None:
    add(store, 1, at=NOW)
    add(store, 1, at=NOW - timedelta(days=9))
    forget_older(store, "one", NOW - timedelta(days=1))
    assert len(records_after(store, "one", 0)) == 2


def sealed(count: int, head: Head) -> list[AuditRecord]:
    records = []
    for _ in range(count):
        record = seal(entry(), head, chain="one", timestamp="2030-01-02T03:04:05.678901Z")
        records.append(record)
        head = head_of(record)
    return records


async def test_records_that_only_a_file_had_are_adopted(store: Store) -> None:
    add(store, 2)
    adopt_records(store, sealed(2, chain_state(store, "one").head))
    verdict = await verify(store)
    assert verdict.fault is None
    assert verdict.records == 4


async def test_a_new_database_goes_on_where_the_file_is(store: Store) -> None:
    adopt_records(store, sealed(4, Head())[2:])
    assert chain_state(store, "one").kept_from == 3
    add(store)
    verdict = await verify(store)
    assert verdict.fault is None
    assert (verdict.first, verdict.last) == (3, 5)
