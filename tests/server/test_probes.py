from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llm_proxy.errors import Unreachable
from llm_proxy.server.local_server import LocalServer
from llm_proxy.server.probes import probe, probe_local

ANSWERS = {
    "/health": (200, json.dumps({"status": "ok", "checks": {"store": "ok"}})),
    "/ready": (503, json.dumps({"status": "draining", "checks": {}})),
    "/degraded": (
        200,
        json.dumps(
            {
                "status": "degraded",
                "checks": {
                    "store": "ok",
                    "upstreams": {
                        "one": {"circuit": "closed"},
                        "two": {
                            "circuit": "half_open",
                            "last_failure": "status 503",
                            "last_failure_at": "2030-01-02T03:04:05Z",
                        },
                    },
                },
            }
        ),
    ),
    "/text": (200, "hello"),
    "/list": (404, "[1]"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_passing_probe(url: str) -> None:
    found = probe(url, "/health")
    assert found.passes
    assert found.summary() == "ok, store: ok"


def test_failing_probe_says_how(url: str) -> None:
    found = probe(url, "/ready")
    assert not found.passes
    assert found.status_code == 503
    assert found.summary() == "draining"


def test_circuits_that_are_not_closed_are_told(url: str) -> None:
    found = probe(url, "/degraded")
    assert found.passes
    assert found.summary() == "degraded, store: ok"
    assert found.open_circuits() == ["two: circuit half-open (status 503, 2030-01-02T03:04:05Z)"]
    assert probe(url, "/health").open_circuits() == []


def test_other_servers_answers_are_no_health(url: str) -> None:
    assert probe(url, "/text").content == {}
    assert probe(url, "/list").summary() == "HTTP 404"


def test_loopback_is_asked_directly(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert probe(url, "/health").passes
    with pytest.raises(Unreachable):
        probe("http://192.0.2.1", "/health")  # this one goes to the proxy, which isn't there


def test_local_server_is_asked_on_its_address(url: str) -> None:
    found = probe_local(LocalServer(address=url.removeprefix("http://")), "/health")
    assert found.summary() == "ok, store: ok"


def test_socket_that_nobody_listens_on_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=f"no server answers at unix:{tmp_path}/s .No such file"):
        probe(f"unix:{tmp_path}/s", "/health")


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="no server answers at http://127.0.0.1:1 "):
        probe("http://127.0.0.1:1", "/health")
    with pytest.raises(Unreachable):
        probe("http://localhost:1", "/health")
