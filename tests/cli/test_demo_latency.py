from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llm_proxy.cli.demo_latency import PAIRS, WARM_UP, AddedLatency, measure_added_latency
from llm_proxy.errors import LLMProxyError


class Answering(BaseHTTPRequestHandler):
    """Answers like an upstream, and keeps what it was asked."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body go out together, and at once
    disable_nagle_algorithm = True
    server: Upstream

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.client_address, self.headers["Authorization"]))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


class Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.status = status
        self.asked: list[tuple[object, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running(status: int = 200) -> Iterator[Upstream]:
    with Upstream(status) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_both_are_asked_equally_often_on_one_connection_each() -> None:
    with running() as direct, running() as proxied:
        latency = measure_added_latency(direct.url, proxied.url, "sk-token")
    for server, key in ((direct, "any-key"), (proxied, "sk-token")):
        assert len(server.asked) == WARM_UP + PAIRS
        assert {asked[1] for asked in server.asked} == {f"Bearer {key}"}
        assert len({asked[0] for asked in server.asked}) == 1
    assert latency.direct_us > 0
    assert latency.proxied_us > 0


def test_added_is_the_difference() -> None:
    latency = AddedLatency(direct_us=100.0, proxied_us=250.0)
    assert latency.added_us == 150.0


def test_refused_request_fails_the_measurement() -> None:
    with (
        running() as direct,
        running(status=401) as proxied,
        pytest.raises(LLMProxyError, match="was answered 401"),
    ):
        measure_added_latency(direct.url, proxied.url, "sk-token")


def test_nobody_there_is_one_sentence() -> None:
    with running() as gone:
        url = gone.url
    with running() as direct, pytest.raises(LLMProxyError, match="a request of the measurement"):
        measure_added_latency(direct.url, url, "sk-token")
