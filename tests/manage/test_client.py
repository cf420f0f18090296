from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trustme

from llm_proxy.errors import LLMProxyError, NotAuthorised, NotFound, Unreachable
from llm_proxy.manage.client import ManagementClient, is_loopback
from llm_proxy.secrets import Secret

PROJECT: dict[str, Any] = {
    "id": "p",
    "name": "demo",
    "api_key": None,
    "description": "",
    "metadata": {},
    "is_active": True,
    "deactivated_at": None,
    "created_at": "2030-01-01T00:00:00Z",
    "updated_at": "2030-01-01T00:00:00Z",
}
URL = "http://manage.test:8080"


def client_of(
    handler: Callable[[httpx.Request], httpx.Response], url: str = URL
) -> ManagementClient:
    return ManagementClient(url, Secret("management"), transport=httpx.MockTransport(handler))


def always(status: int, **answer: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(status, **answer)


def envelope(message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"message": message, "code": "c"}, "request_id": "r"}


def test_a_request_carries_the_token_and_json() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(201, json=PROJECT)

    with client_of(handler, URL + "/behind/a/prefix/") as client:
        assert client.create_project({"name": "demo"}).name == "demo"
    request = seen[0]
    assert (request.method, str(request.url)) == ("POST", f"{URL}/behind/a/prefix/manage/projects")
    assert request.headers["Authorization"] == "Bearer management"
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.content) == {"name": "demo"}


def test_every_page_of_a_list_is_fetched() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.query.decode())
        cursor = request.url.params.get("cursor")
        following = {None: "b", "b": "c"}.get(cursor)
        headers = (
            {"Link": f'</manage/projects?limit=1000&cursor={following}>; rel="next"'}
            if following
            else {}
        )
        return httpx.Response(200, json=[{**PROJECT, "id": cursor or "a"}], headers=headers)

    with client_of(handler) as client:
        assert [project.id for project in client.list_projects()] == ["a", "b", "c"]
    assert asked == ["limit=1000", "limit=1000&cursor=b", "limit=1000&cursor=c"]


def test_a_list_that_leads_in_a_circle_ends() -> None:
    link = {"Link": '</manage/projects?cursor=same>; rel="next"'}
    with client_of(always(200, json=[PROJECT], headers=link)) as client:
        assert len(client.list_projects()) == 2


def test_ids_cannot_lead_to_other_paths() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(204)

    with client_of(handler) as client:
        client.revoke_token("../projects/p?force=true#")
    assert seen == ["/manage/tokens/..%2Fprojects%2Fp%3Fforce%3Dtrue%23"]


def test_running_requests_are_cancelled_on_demand() -> None:
    seen: list[tuple[str, bytes]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.query.decode(), request.content))
        counts = {"revoked_count": 0, "already_revoked_count": 0, "total_tokens": 0}
        return httpx.Response(200, json=counts)

    with client_of(handler) as client:
        client.revoke_token("t", cancel_running=True)
        client.delete_project("p", force=True, cancel_running=True)
        client.revoke_project_tokens("p", cancel_running=True)
        client.revoke_project_tokens("p")
    assert seen == [
        ("cancel_running=true", b""),
        ("force=true&cancel_running=true", b""),
        ("", b'{"cancel_running":true}'),
        ("", b""),
    ]


def test_a_token_is_looked_up_without_being_sent() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=[])

    with client_of(handler) as client, pytest.raises(NotFound, match="doesn't know this token"):
        client.find_token(Secret("sk-canary"))
    assert "canary" not in f"{seen[0].url} {seen[0].headers} {seen[0].content!r}"
    assert len(seen[0].url.params["digest"]) == 64


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [
        (400, LLMProxyError, 1),
        (401, NotAuthorised, 3),
        (403, NotAuthorised, 3),
        (404, NotFound, 4),
        (409, LLMProxyError, 1),
        (500, LLMProxyError, 1),
        (503, LLMProxyError, 1),
    ],
)
def test_a_refusal_says_what_the_server_said(
    status: int, kind: type[LLMProxyError], exit_code: int
) -> None:
    with (
        client_of(always(status, json=envelope("the reason"))) as client,
        pytest.raises(LLMProxyError, match="the reason") as caught,
    ):
        client.get_project("p")
    assert type(caught.value) is kind
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (always(200, text="<html>"), LLMProxyError),
        (always(200, json={"hello": "world"}), LLMProxyError),
        (always(200, content=b'{"name": "\xff"}'), LLMProxyError),
        (always(302, headers={"Location": "http://elsewhere.test/"}), LLMProxyError),
        (always(404, text="404 page not found"), NotFound),
        (always(401, text="who are you?"), NotAuthorised),
        (always(404, json={"error": {"message": "Invalid URL", "code": None}}), NotFound),
        (always(502, content=b"\xff"), LLMProxyError),
    ],
)
def test_a_stranger_is_recognised(
    answer: Callable[[httpx.Request], httpx.Response], kind: type[LLMProxyError]
) -> None:
    with (
        client_of(answer) as client,
        pytest.raises(LLMProxyError, match="check --manage-api-base-url") as caught,
    ):
        client.get_project("p")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (httpx.ConnectError("refused"), Unreachable, "no server can be reached at http://manage"),
        (httpx.ConnectTimeout("slow"), Unreachable, "no server can be reached"),
        (httpx.RemoteProtocolError("garbage"), Unreachable, "no server can be reached"),
        (httpx.ReadTimeout("slow"), Unreachable, "it may have done what was asked"),
        (httpx.DecodingError("gzip"), LLMProxyError, "failed: gzip"),
    ],
)
def test_a_failure_on_the_way_is_translated(
    failure: httpx.HTTPError, kind: type[LLMProxyError], message: str
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise failure

    with client_of(handler) as client, pytest.raises(LLMProxyError, match=message) as caught:
        client.list_projects()
    assert type(caught.value) is kind


def test_a_port_where_nobody_listens_is_unreachable(deaf_address: str) -> None:
    with (
        ManagementClient(f"http://{deaf_address}", Secret("m")) as client,
        pytest.raises(Unreachable, match="llm-proxy server start"),
    ):
        client.list_projects()


def test_loopback_traffic_goes_through_no_proxy(
    monkeypatch: pytest.MonkeyPatch, deaf_address: str
) -> None:
    nowhere = f"http://{deaf_address}"
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.05)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with ManagementClient(nowhere, Secret("m")) as client, pytest.raises(Unreachable):
            client.list_projects()
        with pytest.raises(TimeoutError):
            proxy.accept()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8080", True),
        ("http://proxy.localhost", True),
        ("http://127.0.0.1", True),
        ("http://127.9.9.9:1", True),
        ("http://[::1]:8080", True),
        ("http://10.0.0.1", False),
        ("https://example.com", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
    ],
)
def test_loopback_is_told_by_the_host(url: str, expected: bool) -> None:
    assert is_loopback(url) == expected


def test_the_certificate_of_a_stranger_is_not_trusted() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            context.wrap_socket(listener.accept()[0], server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=accept, args=(listener,))
        server.start()
        url = f"https://localhost:{listener.getsockname()[1]}"
        with (
            ManagementClient(url, Secret("m")) as client,
            pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            client.list_projects()
        server.join(10)
