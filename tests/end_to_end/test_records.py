"""One line for each exchange with a real server, whatever becomes of it and of the writer."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from llm_proxy.manage.client import ManagementClient
from llm_proxy.manage.objects import NewToken
from tests.end_to_end.conftest import Launch
from tests.end_to_end.raw_upstream import connect
from tests.end_to_end.server_process import ServerProcess, run_command
from tests.end_to_end.waiting import eventually

CHAT = "/v1/chat/completions"
QUESTION = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
FIELDS = [
    *("timestamp", "request_id", "project_id", "token_id", "api", "endpoint", "method"),
    *("status_code", "duration_ms", "upstream_ms", "ttft_ms", "stream", "request_bytes"),
    *("response_bytes", "truncated", "error_code", "client_ip", "metadata"),
]

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(server: ServerProcess) -> Ask:
    """Sends a request and gives the one record of it."""

    def ask(
        path: str, *, token: str = "", method: str = "POST", content: bytes = b"", **headers: str
    ) -> dict[str, Any]:
        identity = str(uuid.uuid4())
        with server.client(token, **headers, **{"X-Request-ID": identity}) as client:
            try:
                client.request(method, path, content=content)
            except httpx.RemoteProtocolError:
                assert "X-Mock-Cut" in headers
        return the_record(server, identity)

    return ask


def the_record(server: ServerProcess, request_id: str) -> dict[str, Any]:
    found = eventually(lambda: [r for r in server.records() if r["request_id"] == request_id])
    (record,) = found
    return record


def test_record_says_what_happened(ask: Ask, new_token: Callable[..., NewToken]) -> None:
    made = new_token()
    content = json.dumps(QUESTION).encode()
    record = ask(CHAT + "?secret=1", token=made.token, content=content)
    assert list(record) == FIELDS
    assert record["token_id"] == made.id
    assert record["project_id"] == made.project_id
    assert (record["api"], record["endpoint"], record["method"]) == ("openai", CHAT, "POST")
    assert record["status_code"] == 200
    assert record["request_bytes"] == len(content)
    assert record["response_bytes"] > 100
    assert record["duration_ms"] >= record["ttft_ms"] >= record["upstream_ms"] > 0
    assert (record["stream"], record["truncated"], record["error_code"]) == (False, False, None)
    assert record["client_ip"] == "127.0.0.1"
    since = datetime.now(UTC) - datetime.fromisoformat(record["timestamp"])
    assert timedelta() < since < timedelta(minutes=1)


@pytest.mark.parametrize("encoding", ["", "gzip", "br", "deflate"])
@pytest.mark.parametrize(
    ("path", "body", "is_stream"),
    [
        (CHAT, QUESTION, False),
        (CHAT, STREAM, True),
        ("/anthropic/v1/messages", {**QUESTION, "max_tokens": 50}, False),
        ("/anthropic/v1/messages", {**QUESTION, "max_tokens": 50, "stream": True}, True),
    ],
)
def test_metadata_is_read_from_every_kind_of_answer(
    ask: Ask, token: str, *, path: str, body: dict[str, Any], is_stream: bool, encoding: str
) -> None:
    headers = {"X-Mock-Encoding": encoding} if encoding else {}
    record = ask(path, token=token, content=json.dumps(body).encode(), **headers)
    metadata = record["metadata"]
    assert record["stream"] is is_stream
    assert metadata["model"] == "gpt-4o-mini"
    assert metadata["prompt_tokens"] == 1
    assert metadata["completion_tokens"] > 10
    assert metadata["total_tokens"] == 1 + metadata["completion_tokens"]


def test_refusals_are_recorded(
    ask: Ask, new_token: Callable[..., NewToken], manage: ManagementClient
) -> None:
    revoked = new_token()
    manage.revoke_token(revoked.id)
    expected = {
        "missing_token": (401, ask("/v1/models", method="GET")),
        "invalid_token": (401, ask("/v1/models", method="GET", token="sk-no")),
        "token_revoked": (401, ask("/v1/models", method="GET", token=revoked.token)),
        "endpoint_not_allowed": (404, ask("/v2/models", method="GET")),
        "method_not_allowed": (405, ask("/v1/models", method="PUT")),
    }
    for code, (status, record) in expected.items():
        assert (record["error_code"], record["status_code"]) == (code, status)
        assert record["upstream_ms"] is None
    assert expected["token_revoked"][1]["token_id"] == revoked.id
    assert expected["missing_token"][1]["token_id"] is None


def test_failures_of_the_upstream_are_recorded(ask: Ask, token: str) -> None:
    content = json.dumps(QUESTION).encode()
    gone = ask("/gone/v1/models", method="GET", token=token)
    assert (gone["api"], gone["error_code"], gone["status_code"]) == (
        "gone",
        "upstream_unreachable",
        502,
    )
    refused = ask(CHAT, token=token, content=content, **{"X-Mock-Status": "429"})
    assert (refused["error_code"], refused["status_code"]) == (None, 429)
    stream = json.dumps(STREAM).encode()
    cut = ask(CHAT, token=token, content=stream, **{"X-Mock-Cut": "2"})
    assert (cut["error_code"], cut["status_code"]) == ("upstream_broken", 200)
    assert cut["truncated"]


def test_client_that_hangs_up_is_recorded(server: ServerProcess, token: str) -> None:
    content = json.dumps(STREAM).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {token}\r\n"
        f"X-Request-ID: hangs-up\r\nX-Mock-Delay: 30s\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with connect(server.address) as client:
        client.send(head.encode() + content)
        client.sock.shutdown(socket.SHUT_WR)
    record = the_record(server, "hangs-up")
    assert record["error_code"] == "client_closed"
    assert record["status_code"] is None


def test_management_requests_are_no_exchanges(
    server: ServerProcess, manage: ManagementClient, ask: Ask
) -> None:
    manage.list_projects()
    ask("/v1/models", method="GET")
    assert not [r for r in server.records() if "manage" in (r["endpoint"] or "")]


def test_log_rotates_by_size(launch: Launch) -> None:
    environ = {"LOG_MAX_SIZE_MB": "1", "LOG_MAX_BACKUPS": "2"}
    server = launch(environ=environ)
    server.start()
    # Refused, since nothing is quicker: what counts is the length of the lines.
    request = b"GET /v1/%b HTTP/1.1\r\nHost: p\r\n\r\n" % (b"x" * 7000)
    count = 600
    with connect(server.address) as client:
        for _ in range(count):
            client.send(request)
            assert client.read_message().start == b"HTTP/1.1 401 Unauthorized"
    assert server.stop() == 0
    first = server.event_log
    files = [first, *(first.with_name(f"{first.name}.{number}") for number in (1, 2, 3))]
    assert [file.exists() for file in files] == [True, True, True, False]
    lines = [line for file in files[:3] for line in file.read_bytes().splitlines()]
    assert all(len(json.loads(line)["endpoint"]) == 7004 for line in lines)
    assert 2 * 140 < len(lines) < count  # the oldest ones went with the file that was full
    for file in files[:3]:
        assert file.stat().st_size <= 1024 * 1024
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_killed_writer_is_replaced_and_later_records_arrive(launch: Launch) -> None:
    server = launch()
    server.start()
    with server.client() as client:
        client.get("/v1/x", headers={"X-Request-ID": "before"})
        the_record(server, "before")
        killed = server.state.writer_pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: server.state.writer_pid not in (None, killed))
        client.get("/v1/x", headers={"X-Request-ID": "after"})
        the_record(server, "after")
        assert client.get("/ready").status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_record_is_lost_by_a_stop_right_after_the_requests(launch: Launch, workers: str) -> None:
    server = launch(arguments=["--workers", workers])
    server.start()
    with server.manage() as manage:
        fields = {"name": "drained", "api_keys": {"openai": "sk-upstream-0123456789"}}
        made = manage.create_token(
            {"project_id": manage.create_project(fields).id, "duration_minutes": 5}
        )
    count = 150
    for _ in range(10):  # connections, so that both workers have some
        with server.client(made.token) as client:
            for _ in range(count // 10):
                assert client.post(CHAT, json=QUESTION).status_code == 200
    stopped = run_command(server.environ, "server", "stop")
    assert stopped.returncode == 0, stopped.stderr
    server.wait_until_all_gone()
    records = server.records()
    assert len(records) == count
    assert len({record["request_id"] for record in records}) == count
    assert all(record["metadata"]["total_tokens"] for record in records)
