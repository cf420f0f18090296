from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from llm_proxy.secrets import Secret
from llm_proxy.server.channel import Change
from llm_proxy.server.control.context import ControlContext
from llm_proxy.store.projects import get_project

pytestmark = pytest.mark.anyio

Create = Callable[..., Awaitable[dict[str, Any]]]
KEY = "sk-upstream-0123456789abcd"


async def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["details"].get("field")


async def test_a_project_is_created_with_its_key_masked(
    client: httpx.AsyncClient, context: ControlContext, surroundings: Any
) -> None:
    body = {"name": "demo", "api_key": KEY, "description": "d", "metadata": {"team": "search"}}
    answer = await client.post("/manage/projects", json=body)
    assert answer.status_code == 201
    project = answer.json()
    assert answer.headers["Location"] == f"/manage/projects/{project['id']}"
    assert project == {
        "id": str(uuid.UUID(project["id"])),
        "name": "demo",
        "api_key": "sk-upst…abcd",
        "api_keys": {"openai": "sk-upst…abcd"},
        "description": "d",
        "metadata": {"team": "search"},
        "is_active": True,
        "deactivated_at": None,
        "created_at": "2030-01-02T03:04:05.678901Z",
        "updated_at": "2030-01-02T03:04:05.678901Z",
        "rate_limit": None,
        "rate_burst": None,
        "max_concurrent": None,
    }
    assert (await client.get(answer.headers["Location"])).json() == project
    assert (await client.get("/manage/projects")).json() == [project]
    assert surroundings.published == [Change(kind="project", id=project["id"])]
    stored = await context.store.run(get_project, project["id"])
    assert stored is not None
    assert stored.api_keys == {"openai": Secret(KEY)}


@pytest.mark.parametrize(
    ("fields", "expected", "foremost"),
    [
        ({"api_key": KEY, "api": "anthropic"}, {"anthropic"}, True),
        ({"api_keys": {"anthropic": KEY}}, {"anthropic"}, True),
        ({"api_key": KEY, "api_keys": {"anthropic": KEY}}, {"openai", "anthropic"}, True),
        ({"api_keys": {"anthropic": KEY, "openai": None}}, {"anthropic"}, True),
    ],
)
async def test_a_key_belongs_to_its_own_api(
    client: httpx.AsyncClient, fields: dict[str, Any], expected: set[str], foremost: bool
) -> None:
    answer = await client.post("/manage/projects", json={"name": "n", **fields})
    assert answer.status_code == 201
    assert set(answer.json()["api_keys"]) == expected
    assert (answer.json()["api_key"] is not None) == foremost
    assert KEY not in answer.text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"api_key": KEY}, "name"),
        ({"name": "", "api_key": KEY}, "name"),
        ({"name": "n"}, "api_key"),
        ({"name": "n", "api_keys": {}}, "api_key"),
        ({"name": "n", "api_keys": {"anthropic": None}}, "api_key"),
        ({"name": "n", "api_key": ""}, "api_key"),
        ({"name": "n", "api_key": "sk-upst…abcd"}, "api_key"),
        ({"name": "n", "api_key": None}, "api_key"),
        ({"name": "n", "api_key": KEY, "api": "mistral"}, "api"),
        ({"name": "n", "api": "openai"}, "api"),
        ({"name": "n", "api_keys": {"mistral": KEY}}, "api_keys"),
        ({"name": "n", "api_keys": {"openai": ""}}, "api_keys.openai"),
        ({"name": "n", "api_key": KEY, "api_keys": {"openai": KEY}}, "api_keys"),
        ({"name": "n", "api_key": KEY, "metadata": []}, "metadata"),
        ({"name": "n", "api_key": KEY, "openai_api_key": KEY}, "openai_api_key"),
        ({"name": "n", "api_key": KEY, "is_active": False}, "is_active"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_created(
    client: httpx.AsyncClient, surroundings: Any, fields: dict[str, Any], field: str
) -> None:
    answer = await client.post("/manage/projects", json=fields)
    assert await refusal(answer) == (400, "invalid_request", field)
    assert KEY not in answer.text
    assert (await client.get("/manage/projects")).json() == []
    assert surroundings.published == []


async def test_a_name_that_is_taken_is_409(
    client: httpx.AsyncClient, create_project: Create
) -> None:
    await create_project(name="taken")
    other = await create_project(name="other")
    body = {"name": "taken", "api_key": KEY}
    created = await client.post("/manage/projects", json=body)
    renamed = await client.patch(f"/manage/projects/{other['id']}", json={"name": "taken"})
    for answer in (created, renamed):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_an_update_changes_what_it_names_and_nothing_else(
    client: httpx.AsyncClient,
    create_project: Create,
    context: ControlContext,
    surroundings: Any,
    method: str,
) -> None:
    before = await create_project(description="d", metadata={"a": 1})
    surroundings.pass_time(hours=1)
    path = f"/manage/projects/{before['id']}"
    after = (await client.request(method, path, json={"name": "renamed"})).json()
    assert after == before | {"name": "renamed", "updated_at": "2030-01-02T04:04:05.678901Z"}
    body = {"api_key": "sk-rotated-0123456789wxyz", "description": None, "metadata": None}
    after = (await client.request(method, path, json=body)).json()
    assert (after["api_key"], after["description"], after["metadata"]) == ("sk-rota…wxyz", "", {})
    stored = await context.store.run(get_project, before["id"])
    assert stored is not None
    assert stored.api_keys == {"openai": Secret("sk-rotated-0123456789wxyz")}
    assert surroundings.published == [Change(kind="project", id=before["id"])] * 3


async def test_an_empty_update_changes_nothing(
    client: httpx.AsyncClient, create_project: Create, surroundings: Any
) -> None:
    before = await create_project()
    surroundings.pass_time(hours=1)
    answer = await client.patch(f"/manage/projects/{before['id']}", json={})
    assert (answer.status_code, answer.json()) == (200, before)


async def test_keys_are_merged_and_null_removes(
    client: httpx.AsyncClient, create_project: Create
) -> None:
    project = await create_project(api_keys={"anthropic": KEY})
    path = f"/manage/projects/{project['id']}"
    answer = await client.patch(path, json={"api_keys": {"openai": None, "retired": None}})
    assert set(answer.json()["api_keys"]) == {"anthropic"}
    answer = await client.patch(path, json={"api_keys": {"openai": KEY}})
    assert set(answer.json()["api_keys"]) == {"anthropic", "openai"}
    answer = await client.patch(path, json={"api_keys": {"openai": None, "anthropic": None}})
    assert (answer.json()["api_key"], answer.json()["api_keys"]) == (None, {})


async def test_deactivation_is_dated_and_undone(
    client: httpx.AsyncClient, create_project: Create
) -> None:
    project = await create_project()
    path = f"/manage/projects/{project['id']}"
    answer = (await client.patch(path, json={"is_active": False})).json()
    assert (answer["is_active"], answer["deactivated_at"]) == (False, "2030-01-02T03:04:05.678901Z")
    answer = (await client.patch(path, json={"is_active": True})).json()
    assert (answer["is_active"], answer["deactivated_at"]) == (True, None)


async def test_tokens_are_revoked_with_a_deactivation_only(
    client: httpx.AsyncClient, create_project: Create, create_token: Create
) -> None:
    project = await create_project()
    token = await create_token(project["id"])
    path = f"/manage/projects/{project['id']}"
    for body in ({"revoke_tokens": True}, {"revoke_tokens": True, "is_active": True}):
        answer = await client.patch(path, json=body)
        assert await refusal(answer) == (400, "invalid_request", "revoke_tokens")
    await client.patch(path, json={"is_active": False, "revoke_tokens": True})
    found = (await client.get(f"/manage/tokens/{token['id']}")).json()
    assert not found["is_active"]


async def test_a_project_has_limits_of_its_own(
    client: httpx.AsyncClient, create_project: Create
) -> None:
    project = await create_project(rate_limit="600/min", max_concurrent=50)
    assert (project["rate_limit"], project["rate_burst"]) == ("600/min", None)
    path = f"/manage/projects/{project['id']}"
    fields = {"rate_limit": None, "rate_burst": 9, "max_concurrent": 0}
    assert fields.items() <= (await client.patch(path, json=fields)).json().items()
    answer = await client.patch(path, json={"rate_limit": "sometimes"})
    assert await refusal(answer) == (400, "invalid_request", "rate_limit")


async def test_what_runs_is_cut_on_demand(
    client: httpx.AsyncClient, create_project: Create, surroundings: Any
) -> None:
    project = await create_project()
    path = f"/manage/projects/{project['id']}"
    cut = Change(kind="project_cut", id=project["id"])
    answer = await client.patch(path, json={"cancel_running": True})
    assert await refusal(answer) == (400, "invalid_request", "cancel_running")
    await client.patch(path, json={"is_active": False, "cancel_running": True})
    assert surroundings.published[-1] == cut
    await client.post(f"{path}/tokens/revoke")
    assert surroundings.published[-1] == Change(kind="project", id=project["id"])
    await client.post(f"{path}/tokens/revoke", json={"cancel_running": True})
    assert surroundings.published[-1] == cut
    await client.delete(path + "?cancel_running=true")
    assert surroundings.published[-1] == cut


async def test_tokens_of_a_project_are_revoked_in_bulk(
    client: httpx.AsyncClient, create_project: Create, create_token: Create, surroundings: Any
) -> None:
    project = await create_project()
    tokens = [await create_token(project["id"]) for _ in range(3)]
    await client.delete(f"/manage/tokens/{tokens[0]['id']}")
    surroundings.published.clear()
    path = f"/manage/projects/{project['id']}/tokens/revoke"
    counts = {"revoked_count": 2, "already_revoked_count": 1, "total_tokens": 3}
    assert (await client.post(path)).json() == counts
    counts = {"revoked_count": 0, "already_revoked_count": 3, "total_tokens": 3}
    assert (await client.post(path, json={})).json() == counts
    assert surroundings.published == [Change(kind="project", id=project["id"])] * 2
    answer = await client.post(path, json={"force": True})
    assert await refusal(answer) == (400, "invalid_request", "force")


async def test_deletion_is_refused_while_tokens_work(
    client: httpx.AsyncClient, create_project: Create, create_token: Create
) -> None:
    project = await create_project()
    token = await create_token(project["id"])
    path = f"/manage/projects/{project['id']}"
    answer = await client.delete(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert "1 active token" in answer.json()["error"]["message"]
    answer = await client.delete(f"{path}?force=maybe")
    assert await refusal(answer) == (400, "invalid_request", "force")
    answer = await client.delete(f"{path}?force=true")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get(f"/manage/tokens/{token['id']}")).status_code == 404


async def test_deletion_needs_no_force_once_the_tokens_are_over(
    client: httpx.AsyncClient, create_project: Create, create_token: Create, surroundings: Any
) -> None:
    project = await create_project()
    await create_token(project["id"], duration_minutes=1)
    surroundings.pass_time(minutes=1)
    assert (await client.delete(f"/manage/projects/{project['id']}")).status_code == 204


@pytest.mark.parametrize("project_id", ["nobody", str(uuid.UUID(int=7)), "%00", "a%20b"])
async def test_an_unknown_project_is_404(client: httpx.AsyncClient, project_id: str) -> None:
    path = f"/manage/projects/{project_id}"
    for answer in (
        await client.get(path),
        await client.patch(path, json={"name": "x"}),
        await client.delete(path),
        await client.delete(f"{path}?force=true"),
        await client.post(f"{path}/tokens/revoke"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
