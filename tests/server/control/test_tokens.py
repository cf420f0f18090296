from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from llm_proxy.secrets import is_well_formed_token, mask, token_digest
from llm_proxy.server.channel import Change
from llm_proxy.server.control.context import ControlContext
from llm_proxy.store.grants import load_grant

pytestmark = pytest.mark.anyio

Create = Callable[..., Awaitable[dict[str, Any]]]


def digest(token: str) -> bytes:
    return token_digest(token.encode())


async def test_a_token_is_shown_once_and_never_again(
    client: httpx.AsyncClient,
    create_project: Create,
    context: ControlContext,
    surroundings: Any,
) -> None:
    project = await create_project()
    body = {"project_id": project["id"], "duration_minutes": 90, "max_requests": 5, "name": "ci"}
    answer = await client.post("/manage/tokens", json=body)
    assert answer.status_code == 201
    made = answer.json()
    secret = made["token"]
    assert is_well_formed_token(secret.encode())
    assert answer.headers["Location"] == f"/manage/tokens/{made['id']}"
    assert made == {
        "id": str(uuid.UUID(made["id"])),
        "token": secret,
        "project_id": project["id"],
        "expires_at": "2030-01-02T04:34:05.678901Z",
        "max_requests": 5,
    }
    assert surroundings.published[-1] == Change(kind="token", id=made["id"])
    shown = await client.get(answer.headers["Location"])
    assert shown.json() == {
        "id": made["id"],
        "name": "ci",
        "token": mask(secret),
        "project_id": project["id"],
        "expires_at": "2030-01-02T04:34:05.678901Z",
        "not_before": None,
        "idle_timeout_seconds": None,
        "idle_expires_at": None,
        "is_active": True,
        "deactivated_at": None,
        "request_count": 0,
        "max_requests": 5,
        "created_at": "2030-01-02T03:04:05.678901Z",
        "last_used_at": None,
        "cache_hit_count": 0,
        "scope": None,
        "rate_limit": None,
        "rate_burst": None,
        "max_concurrent": None,
    }
    listed = await client.get("/manage/tokens")
    assert listed.json() == [shown.json()]
    assert secret not in shown.text + listed.text
    grant = await context.store.run(load_grant, digest(secret))
    assert grant is not None
    assert (grant.token_id, grant.max_requests) == (made["id"], 5)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"duration_minutes": None}, "duration_minutes"),
        ({"duration_minutes": 0}, "duration_minutes"),
        ({"duration_minutes": 525_601}, "duration_minutes"),
        ({"max_requests": -1}, "max_requests"),
        ({"max_requests": 10**30}, "max_requests"),
        ({"name": "x" * 201}, "name"),
        ({"project_id": None}, "project_id"),
        ({"expires_in_days": 3}, "expires_in_days"),
        ({"expires_at": None}, "duration_minutes"),  # one of the two, not both
        ({"not_before": "2031-01-01"}, "not_before"),
        ({"not_before": "9500-01-01T00:00:00Z"}, "not_before"),
        ({"idle_timeout_seconds": 59}, "idle_timeout_seconds"),
        ({"scope": {"apis": ["mistral"]}}, "scope.apis"),
        ({"scope": {"regions": []}}, "scope.regions"),
        ({"scope": {"apis": "openai"}}, "scope.apis"),
        ({"rate_limit": "fast"}, "rate_limit"),
        ({"rate_burst": 0}, "rate_burst"),
        ({"max_concurrent": -1}, "max_concurrent"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_made(
    client: httpx.AsyncClient, create_project: Create, fields: dict[str, Any], field: str
) -> None:
    project = await create_project()
    body = {"project_id": project["id"], "duration_minutes": 5, **fields}
    answer = await client.post("/manage/tokens", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"] == {"field": field}
    assert (await client.get("/manage/tokens")).json() == []


async def test_a_token_can_be_narrowed_and_limited_from_the_start(
    client: httpx.AsyncClient, create_project: Create, create_token: Create, context: ControlContext
) -> None:
    made = await create_token(
        (await create_project())["id"],
        not_before="2030-01-02T04:00:00Z",
        idle_timeout_seconds=3600,
        scope={"apis": ["openai"], "networks": ["10.0.0.0/8"]},
        rate_limit="60/min",
        rate_burst=5,
        max_concurrent=0,
    )
    assert made["expires_at"] == "2030-01-02T05:00:00Z"  # its time begins when it is valid
    shown = (await client.get(f"/manage/tokens/{made['id']}")).json()
    nothing: list[str] = []
    expected = {
        "not_before": "2030-01-02T04:00:00Z",
        "idle_timeout_seconds": 3600,
        "idle_expires_at": "2030-01-02T05:00:00Z",
        "scope": {
            "apis": ["openai"],
            "endpoints": nothing,
            "methods": nothing,
            "models": nothing,
            "networks": ["10.0.0.0/8"],
        },
        "rate_limit": "60/min",
        "rate_burst": 5,
        "max_concurrent": 0,
    }
    assert expected.items() <= shown.items()
    grant = await context.store.run(load_grant, digest(made["token"]))
    assert grant is not None
    assert grant.scope.networks == ("10.0.0.0/8",)
    assert grant.token_limits.rate_limit == "60/min"


@pytest.mark.parametrize(
    ("fields", "field", "end"),
    [
        ({"expires_at": "2030-02-01T00:00:00Z"}, None, "2030-02-01T00:00:00Z"),
        ({"expires_at": None}, None, None),
        ({"expires_at": "2030-01-02T03:04:05Z"}, "expires_at", None),
        (
            {"expires_at": "2030-02-01T00:00:00Z", "not_before": "2030-02-01T00:00:00Z"},
            "not_before",
            None,
        ),
        ({}, "duration_minutes", None),
    ],
)
async def test_a_token_can_be_made_with_its_end(
    client: httpx.AsyncClient,
    create_project: Create,
    fields: dict[str, Any],
    field: str | None,
    end: str | None,
) -> None:
    project = await create_project()
    answer = await client.post("/manage/tokens", json={"project_id": project["id"], **fields})
    if field is not None:
        assert answer.status_code == 400
        assert answer.json()["error"]["details"] == {"field": field}
    else:
        assert answer.status_code == 201
        assert answer.json()["expires_at"] == end


@pytest.mark.parametrize("unlimited", [0, None])
async def test_no_cap_is_null(
    create_project: Create, create_token: Create, unlimited: int | None
) -> None:
    project = await create_project()
    assert (await create_token(project["id"], max_requests=unlimited))["max_requests"] is None


async def test_a_project_that_is_inactive_or_unknown_gets_no_tokens(
    client: httpx.AsyncClient, create_project: Create
) -> None:
    project = await create_project()
    await client.patch(f"/manage/projects/{project['id']}", json={"is_active": False})
    for project_id, expected in [
        (project["id"], (403, "project_inactive")),
        ("nobody", (404, "not_found")),
    ]:
        body = {"project_id": project_id, "duration_minutes": 5}
        answer = await client.post("/manage/tokens", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == expected


async def test_lists_are_filtered_and_paged(
    client: httpx.AsyncClient, create_project: Create, create_token: Create, surroundings: Any
) -> None:
    one, other = await create_project(name="one"), await create_project(name="other")
    short = await create_token(one["id"], duration_minutes=1)
    surroundings.pass_time(seconds=30)
    long = await create_token(one["id"])
    surroundings.pass_time(seconds=30)
    elsewhere = await create_token(other["id"])

    async def ids(query: str) -> list[str]:
        answer = await client.get(f"/manage/tokens{query}")
        assert answer.status_code == 200, answer.text
        return [token["id"] for token in answer.json()]

    assert await ids("") == [elsewhere["id"], long["id"], short["id"]]
    assert await ids(f"?project_id={one['id']}") == [long["id"], short["id"]]
    assert await ids(f"?project_id={one['id']}&active_only=true") == [long["id"]]
    assert await ids("?project_id=nobody") == []
    first = await client.get(f"/manage/tokens?project_id={one['id']}&limit=1")
    assert first.headers["X-Total-Count"] == "2"
    assert await ids(first.links["next"]["url"].removeprefix("/manage/tokens")) == [short["id"]]


async def test_a_token_is_found_by_its_digest(
    client: httpx.AsyncClient, create_project: Create, create_token: Create
) -> None:
    made = await create_token((await create_project())["id"])
    text = digest(made["token"]).hex()
    found = (await client.get(f"/manage/tokens?digest={text}")).json()
    assert [token["id"] for token in found] == [made["id"]]
    assert (await client.get(f"/manage/tokens?digest={'0' * 64}")).json() == []
    assert (await client.get("/manage/tokens?digest=sk-token")).status_code == 400


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_an_update_changes_what_it_names_and_nothing_else(
    client: httpx.AsyncClient, create_project: Create, create_token: Create, method: str
) -> None:
    made = await create_token((await create_project())["id"], max_requests=5, name="old")
    path = f"/manage/tokens/{made['id']}"
    before = (await client.get(path)).json()

    async def update(**fields: Any) -> dict[str, Any]:
        answer = await client.request(method, path, json=fields)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    assert await update(name="new") == before | {"name": "new"}
    assert await update(name=None) == before | {"name": ""}
    assert (await update(max_requests=7))["max_requests"] == 7
    assert (await update(max_requests=0))["max_requests"] is None
    expiry = await update(expires_at="2031-01-01T01:00:00+01:00")
    assert expiry["expires_at"] == "2031-01-01T00:00:00Z"
    assert (await update(expires_at=None))["expires_at"] is None
    assert (await update(is_active=False))["deactivated_at"] == "2030-01-02T03:04:05.678901Z"
    assert (await update(is_active=True))["deactivated_at"] is None


async def test_an_update_narrows_limits_and_resets(
    client: httpx.AsyncClient, create_project: Create, create_token: Create
) -> None:
    made = await create_token((await create_project())["id"], scope={"methods": ["GET"]})
    path = f"/manage/tokens/{made['id']}"

    async def update(**fields: Any) -> dict[str, Any]:
        answer = await client.patch(path, json=fields)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    assert (await update(not_before="2030-01-02T03:00:00Z"))["not_before"]
    assert (await update(not_before=None))["not_before"] is None
    assert (await update(idle_timeout_seconds=60))["idle_expires_at"]
    assert (await update(idle_timeout_seconds=None))["idle_expires_at"] is None
    scope = (await update(scope={"models": ["gpt-4*"]}))["scope"]
    assert (scope["methods"], scope["models"]) == (["GET"], ["gpt-4*"])
    assert (await update(scope={"methods": []}))["scope"]["models"] == ["gpt-4*"]
    assert (await update(scope=None))["scope"] is None
    assert (await update(rate_limit="10/s"))["rate_limit"] == "10/s"
    assert (await update(rate_limit=None, rate_burst=3))["rate_limit"] is None
    assert (await update(max_concurrent=4))["max_concurrent"] == 4


async def test_the_ends_of_its_time_keep_their_order(
    client: httpx.AsyncClient, create_project: Create, create_token: Create
) -> None:
    made = await create_token((await create_project())["id"])
    path = f"/manage/tokens/{made['id']}"
    before = (await client.get(path)).json()
    answer = await client.patch(path, json={"not_before": made["expires_at"]})
    assert answer.status_code == 400
    assert "must lie before expires_at (2030-01-02T04:04:05Z)" in answer.text
    assert (await client.get(path)).json() == before


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cancel_running": True}, "cancel_running"),
        ({"cancel_running": True, "is_active": True}, "cancel_running"),
        ({"idle_timeout_seconds": 10**10}, "idle_timeout_seconds"),
        ({"scope": {"networks": ["office"]}}, "scope.networks"),
        ({"rate_limit": 60}, "rate_limit"),
        ({"expires_at": "2031-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-05:00"}, "expires_at"),
        ({"expires_at": 1893553445}, "expires_at"),
        ({"max_requests": -1}, "max_requests"),
        ({"is_active": "false"}, "is_active"),
        ({"is_active": None}, "is_active"),
        ({"project_id": "x"}, "project_id"),
        ({"request_count": 0}, "request_count"),
        ({}, None),
    ],
)
async def test_a_wrong_update_changes_nothing(
    client: httpx.AsyncClient,
    create_project: Create,
    create_token: Create,
    fields: dict[str, Any],
    field: str | None,
) -> None:
    made = await create_token((await create_project())["id"])
    path = f"/manage/tokens/{made['id']}"
    before = (await client.get(path)).json()
    answer = await client.patch(path, json={"name": "changed", **fields} if fields else {})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"].get("field") == field
    assert (await client.get(path)).json() == before


async def test_revoking_is_idempotent(
    client: httpx.AsyncClient, create_project: Create, create_token: Create, surroundings: Any
) -> None:
    made = await create_token((await create_project())["id"])
    path = f"/manage/tokens/{made['id']}"
    for _ in range(2):
        answer = await client.delete(path)
        assert (answer.status_code, answer.content) == (204, b"")
        surroundings.pass_time(hours=1)
    found = (await client.get(path)).json()
    assert (found["is_active"], found["deactivated_at"]) == (False, "2030-01-02T03:04:05.678901Z")


async def test_what_runs_is_cut_on_demand(
    client: httpx.AsyncClient, create_project: Create, create_token: Create, surroundings: Any
) -> None:
    made = await create_token((await create_project())["id"])
    path = f"/manage/tokens/{made['id']}"
    cut = Change(kind="token_cut", id=made["id"])
    answer = await client.patch(path, json={"is_active": False, "cancel_running": True})
    assert (answer.status_code, surroundings.published[-1]) == (200, cut)
    await client.delete(path)
    assert surroundings.published[-1] == Change(kind="token", id=made["id"])
    answer = await client.delete(path + "?cancel_running=true")
    assert (answer.status_code, surroundings.published[-1]) == (204, cut)
    assert (await client.delete(path + "?cancel_running=perhaps")).status_code == 400


async def test_a_rotated_token_is_new_and_the_old_one_ends_with_its_grace(
    client: httpx.AsyncClient,
    create_project: Create,
    create_token: Create,
    context: ControlContext,
    surroundings: Any,
) -> None:
    made = await create_token((await create_project())["id"], max_requests=5)
    path = f"/manage/tokens/{made['id']}/rotate"
    answer = await client.post(path, json={"grace_seconds": 60})
    assert answer.status_code == 200
    rotated = answer.json()
    assert rotated == made | {
        "token": rotated["token"],
        "previous_valid_until": "2030-01-02T03:05:05.678901Z",
    }
    assert rotated["token"] != made["token"]
    assert is_well_formed_token(rotated["token"].encode())
    assert surroundings.published[-1] == Change(kind="token", id=made["id"])
    old = await context.store.run(load_grant, digest(made["token"]))
    new = await context.store.run(load_grant, digest(rotated["token"]))
    assert old is not None and new is not None
    assert old.expires_at == datetime(2030, 1, 2, 3, 5, 5, 678901, UTC).timestamp()
    assert new.expires_at == datetime(2030, 1, 2, 4, 4, 5, 678901, UTC).timestamp()
    shown = (await client.get(f"/manage/tokens/{made['id']}")).json()
    assert shown["token"] == mask(rotated["token"])


async def test_without_grace_the_old_token_ends_at_once(
    client: httpx.AsyncClient,
    create_project: Create,
    create_token: Create,
    context: ControlContext,
    surroundings: Any,
) -> None:
    made = await create_token((await create_project())["id"])
    answer = await client.post(f"/manage/tokens/{made['id']}/rotate")
    assert answer.status_code == 200
    old = await context.store.run(load_grant, digest(made["token"]))
    assert old is not None
    assert old.expires_at == surroundings.now.timestamp()


async def test_a_token_that_would_not_work_is_not_rotated(
    client: httpx.AsyncClient, create_project: Create, create_token: Create, surroundings: Any
) -> None:
    project = await create_project()
    revoked = await create_token(project["id"])
    await client.delete(f"/manage/tokens/{revoked['id']}")
    expired = await create_token(project["id"], duration_minutes=1)
    idle = await create_token(project["id"], idle_timeout_seconds=60)
    surroundings.pass_time(minutes=1)
    for token, word in [(revoked, "revoked"), (expired, "expired"), (idle, "expired unused")]:
        answer = await client.post(f"/manage/tokens/{token['id']}/rotate")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        assert word in answer.json()["error"]["message"]


@pytest.mark.parametrize("grace", [-1, 31_536_001, "60", None])
async def test_a_wrong_grace_is_named(
    client: httpx.AsyncClient, create_project: Create, create_token: Create, grace: Any
) -> None:
    made = await create_token((await create_project())["id"])
    path = f"/manage/tokens/{made['id']}/rotate"
    answer = await client.post(path, json={"grace_seconds": grace})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"] == {"field": "grace_seconds"}


async def test_an_unknown_token_is_404(client: httpx.AsyncClient) -> None:
    path = f"/manage/tokens/{uuid.uuid4()}"
    for answer in (
        await client.get(path),
        await client.patch(path, json={"name": "x"}),
        await client.delete(path),
        await client.post(f"{path}/rotate"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
