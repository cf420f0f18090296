from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.audit import FIRST_HASH
from tests.server.control.audited import Audited

pytestmark = pytest.mark.anyio


async def make_tokens(audited: Audited, count: int) -> list[str]:
    body = {"name": "demo", "api_key": "sk-upstream-0123456789"}
    project_id = (await audited.client.post("/manage/projects", json=body)).json()["id"]
    fields = {"project_id": project_id, "duration_minutes": 5}
    made = [await audited.client.post("/manage/tokens", json=fields) for _ in range(count)]
    return [answer.json()["id"] for answer in made]


async def listed(audited: Audited, **query: Any) -> list[dict[str, Any]]:
    answer = await audited.client.get("/manage/audit", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


async def test_list_shows_all_fields_the_newest_first(audited: Audited) -> None:
    (token_id,) = await make_tokens(audited, 1)
    newest, oldest = await listed(audited)
    assert (newest["action"], newest["token_id"]) == ("token.create", token_id)
    assert oldest["token_id"] is None
    assert set(oldest) == {
        *("id", "timestamp", "chain", "sequence", "action", "actor", "outcome", "client_ip"),
        *("request_id", "method", "path", "user_agent", "project_id", "token_id", "reason"),
        *("details", "previous_hash", "hash"),
    }
    assert oldest["previous_hash"] == FIRST_HASH
    assert newest["previous_hash"] == oldest["hash"]


async def test_pages_follow_the_link(audited: Audited) -> None:
    await make_tokens(audited, 5)
    answer = await audited.client.get("/manage/audit?limit=2&action=token.create")
    assert answer.headers["X-Total-Count"] == "5"
    seen = answer.json()
    while (following := answer.links.get("next")) is not None:
        answer = await audited.client.get(following["url"])
        seen += answer.json()
    assert len({record["id"] for record in seen}) == len(seen) == 5


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"action": "token.create"}, 2),
        ({"action": "token"}, 0),
        ({"outcome": "success"}, 3),
        ({"outcome": "denied"}, 0),
        ({"actor": "management_api", "method": "POST", "path": "/manage/tokens"}, 2),
        ({"client_ip": "127.0.0.1"}, 3),
        ({"search": "TOKEN.CRE"}, 2),
        ({"search": "%"}, 0),
        ({"start_time": "2020-01-02T03:04:05Z"}, 3),
        ({"start_time": "2099-01-02T04:04:05.678902+01:00"}, 0),
        ({"end_time": "2020-01-02T03:04:05.678900Z"}, 0),
        ({"end_time": "2099-01-02T04:04:05.678901+01:00"}, 3),
    ],
)
async def test_filters(audited: Audited, query: dict[str, str], count: int) -> None:
    await make_tokens(audited, 2)
    assert len(await listed(audited, **query)) == count


async def test_ids_can_be_asked_for(audited: Audited) -> None:
    first, _ = await make_tokens(audited, 2)
    (record,) = await listed(audited, token_id=first)
    assert len(await listed(audited, project_id=record["project_id"])) == 3
    assert await listed(audited, request_id=record["request_id"]) == [record]
    answer = await audited.client.get(f"/manage/audit/{record['id']}")
    assert answer.json() == record


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("outcome=maybe", "outcome"),
        ("start_time=yesterday", "start_time"),
        ("start_time=2030-01-02", "start_time"),
        ("end_time=2030-01-02T03:04:05", "end_time"),
        ("end_time=2030-01-02T03:04:05+01:00", "end_time"),
        ("end_time=0001-01-01T00:00:00%2B10:00", "end_time"),
        ("start_time=9999-12-31T23:00:00-10:00", "start_time"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("cursor=%C3%A9", "cursor"),
        ("cursor=YQBi", "cursor"),
        ("page=1", "page"),
        ("action=a&action=b", "action"),
        ("search=" + "x" * 201, "search"),
        ("search=%00", "search"),
        ("path=%00", "path"),
    ],
)
async def test_what_can_not_be_asked_is_400_with_its_name(
    audited: Audited, query: str, field: str
) -> None:
    answer = await audited.client.get(f"/manage/audit?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field


async def test_an_unknown_record_is_404(audited: Audited) -> None:
    assert (await audited.client.get("/manage/audit/nothing")).status_code == 404


async def test_verification_tells_of_the_first_fault(audited: Audited) -> None:
    await make_tokens(audited, 2)
    sound = (await audited.client.get("/manage/audit/verify")).json()
    assert sound["sound"] is True
    assert [chain["records"] for chain in sound["chains"]] == [3, 3]
    with audited.context.store.writing() as database:
        database.sql("UPDATE audit_records SET token_id = NULL WHERE sequence = 2")
    broken = (await audited.client.get("/manage/audit/verify")).json()
    assert broken["sound"] is False
    fault = broken["chains"][0]["fault"]
    assert (fault["kind"], fault["sequence"]) == ("changed", 2)
    assert broken["chains"][1]["fault"] is None
