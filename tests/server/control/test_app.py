from __future__ import annotations

import httpx
import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/manage/projects", {"GET", "HEAD", "POST"}),
        ("/manage/projects/x", {"GET", "HEAD", "PATCH", "PUT", "DELETE"}),
        ("/manage/projects/x/tokens/revoke", {"POST"}),
        ("/manage/tokens", {"GET", "HEAD", "POST"}),
        ("/manage/tokens/x", {"GET", "HEAD", "PATCH", "PUT", "DELETE"}),
        ("/manage/tokens/x/rotate", {"POST"}),
        ("/manage/audit", {"GET", "HEAD"}),
        ("/manage/audit/verify", {"GET", "HEAD"}),
        ("/manage/audit/x", {"GET", "HEAD"}),
        ("/health", {"GET", "HEAD"}),
        ("/ready", {"GET", "HEAD"}),
        ("/live", {"GET", "HEAD"}),
    ],
)
async def test_another_method_is_405_and_told_which_are_allowed(
    client: httpx.AsyncClient, path: str, allowed: set[str]
) -> None:
    answer = await client.request("OPTIONS", path)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == allowed
    assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path",
    ["/", "/manage", "/manage/", "/manage/nothing", "/manage/projects/", "/manage/tokens/a/b/c"],
)
async def test_an_unknown_path_is_404_in_the_envelope(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/json"
    document = answer.json()
    assert document["type"] == "error"
    assert document["error"]["code"] == "not_found"
    assert path in document["error"]["message"]


async def test_head_answers_like_get_without_a_body(client: httpx.AsyncClient) -> None:
    answer = await client.head("/manage/projects")
    assert answer.status_code == 200
    assert answer.headers["X-Total-Count"] == "0"
