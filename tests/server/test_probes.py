from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llm_proxy.errors import Unreachable
from llm_proxy.server.probes import local_url, probe

ANSWERS = {
    "/health": (200, json.dumps({"status": "ok", "checks": {"store": "ok"}})),
    "/ready": (503, json.dumps({"status": "draining", "checks": {}})),
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


def test_other_servers_answers_are_no_health(url: str) -> None:
    assert probe(url, "/text").content == {}
    assert probe(url, "/list").summary() == "HTTP 404"


def test_loopback_is_asked_directly(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert probe(url, "/health").passes
    with pytest.raises(Unreachable):
        probe("http://192.0.2.1", "/health")  # this one goes to the proxy, which isn't there


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="no server answers at http://127.0.0.1:1 "):
        probe("http://127.0.0.1:1", "/health")
    with pytest.raises(Unreachable):
        probe("http://localhost:1", "/health")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:80", "http://[::1]:80"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_url_on_this_machine(address: str, url: str) -> None:
    assert local_url(address) == url
