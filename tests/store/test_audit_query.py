from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from llm_proxy.audit import AuditEntry
from llm_proxy.store.audit import append_entries
from llm_proxy.store.audit_query import EXACT, AuditFilter, get_record, list_records
from llm_proxy.store.database import Store

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)


def add(store: Store, *, at: datetime = NOW, **fields: Any) -> str:
    values = {"action": "token.create", "actor": "management_api", "outcome": "success", **fields}
    return append_entries(store, "one", [AuditEntry(**values)], at=at)[0].id


def found(store: Store, **wanted: Any) -> list[str]:
    page = list_records(store, AuditFilter(**wanted), limit=100)
    assert page.total == len(page.items)
    return [record.id for record in page.items]


@pytest.mark.parametrize("name", EXACT)
def test_each_field_can_be_asked_for(store: Store, name: str) -> None:
    fields: dict[str, Any] = {name: "denied"}
    wanted = add(store, **fields)
    add(store)
    assert found(store, exact={name: "denied"}) == [wanted]
    assert found(store, exact={name: "den%"}) == []


def test_filters_add_up(store: Store) -> None:
    wanted = add(store, action="token.revoke", client_ip="192.0.2.1")
    add(store, action="token.revoke")
    add(store, client_ip="192.0.2.1")
    both = {"action": "token.revoke", "client_ip": "192.0.2.1"}
    assert found(store, exact=both) == [wanted]


def test_times_include_their_ends_in_any_zone(store: Store) -> None:
    ids = [add(store, at=NOW + timedelta(seconds=n)) for n in range(3)]
    east = timezone(timedelta(hours=5, minutes=30))
    assert found(store, since=NOW + timedelta(seconds=1)) == [ids[2], ids[1]]
    assert found(store, until=(NOW + timedelta(seconds=1)).astimezone(east)) == [ids[1], ids[0]]
    assert found(store, since=NOW.astimezone(east), until=NOW) == [ids[0]]


@pytest.mark.parametrize("text", ["TEAPOT", "eapo", "100%_x\\"])
def test_search_looks_anywhere_and_takes_text_as_it_is(store: Store, text: str) -> None:
    by_agent = add(store, user_agent="a teapot 100%_x\\y")
    by_reason = add(store, reason="TeaPot 100%_x\\")
    by_details = add(store, details={"what": "teapot"})
    add(store, user_agent="100 teap0t x")
    expected = [by_reason, by_agent] if "%" in text else [by_details, by_reason, by_agent]
    assert found(store, search=text) == expected


def test_pages_give_every_record_once_the_newest_first(store: Store) -> None:
    ids = [add(store, at=NOW + timedelta(seconds=n // 2)) for n in range(7)]
    seen, after = [], None
    while True:
        page = list_records(store, AuditFilter(), limit=2, after=after)
        assert page.total == 7
        seen += [record.id for record in page.items]
        if (after := page.after) is None:
            break
    assert sorted(seen) == sorted(ids)
    times = [record.timestamp for record in list_records(store, AuditFilter(), limit=9).items]
    assert times == sorted(times, reverse=True)


def test_one_record_by_its_id(store: Store) -> None:
    record = get_record(store, add(store, details={"count": 3}))
    assert record is not None
    assert record.details == {"count": 3}
    assert get_record(store, "nothing") is None
