"""Rates and concurrency of real servers with several workers: exact in total, and nothing leaks."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.end_to_end.conftest import Launch
from tests.end_to_end.raw_upstream import Peer, connect
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.test_metrics import ask, scrape
from tests.end_to_end.waiting import eventually

CHAT = "/v1/chat/completions"
WORKERS = ["--workers", "2"]
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"Connection: close\r\n\r\n{}"
)


def limited_token(server: ServerProcess, **limits: object) -> str:
    with server.manage() as manage:
        project = manage.create_project({"name": "one", "api_keys": {"openai": "sk-upstream-1"}})
        fields = {"project_id": project.id, "duration_minutes": 60, **limits}
        return manage.create_token(fields).token


def ask_at_once(server: ServerProcess, token: str, times: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda _: ask(server, token), range(times)))


def test_burst_of_a_token_is_admitted_once_over_both_workers(launch: Launch) -> None:
    server = launch(arguments=WORKERS)
    server.start()
    token = limited_token(server, rate_limit="20/h")
    answers = ask_at_once(server, token, 60)
    assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 40}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limited"
    assert 170 <= int(refused.headers["Retry-After"]) <= 181
    assert refused.headers["RateLimit-Policy"] == '"token";q=20;w=3600'
    for pid in server.worker_pids:  # what they counted is not theirs
        os.kill(pid, signal.SIGKILL)
    before = set(server.worker_pids)
    eventually(lambda: len(server.worker_pids) == 2 and not before & set(server.worker_pids))
    assert {answer.status_code for answer in ask_at_once(server, token, 10)} == {429}


def test_limits_of_the_environment_count_all_and_each_address(launch: Launch) -> None:
    environ = {"GLOBAL_RATE_LIMIT": "30/h", "IP_RATE_LIMIT": "5", "TRUSTED_PROXIES": "127.0.0.1"}
    server = launch(arguments=WORKERS, environ=environ)
    server.start()
    token = limited_token(server)

    def ask_from(number: int) -> str:
        answer = ask(server, token, X_Forwarded_For=f"192.0.2.{number}")
        return answer.json()["error"]["details"]["limit"] if answer.is_error else ""

    with ThreadPoolExecutor(8) as threads:
        from_two = Counter(threads.map(lambda number: ask_from(number % 2), range(40)))
        from_many = Counter(threads.map(lambda number: ask_from(9 + number), range(40)))
    assert from_two == {"": 10, "client_ip": 30}  # what was refused is not charged to the total
    assert from_many == {"": 20, "total": 20}


class Held:
    """Requests that an upstream holds, each on a connection of its own."""

    def __init__(self, server: ServerProcess, upstream: socket.socket, token: str) -> None:
        self.server = server
        self.upstream = upstream
        self.head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Content-Length: 2\r\n\r\n{}"
        ).encode()
        self.clients: list[Peer] = []
        self.peers: list[Peer] = []

    def begin(self) -> bool:
        """Whether one more reached the upstream; otherwise it was refused."""
        client = connect(self.server.address)
        client.send(self.head)
        if (peer := self._arrives(client)) is None:
            assert client.read_message().start == b"HTTP/1.1 429 Too Many Requests"
            client.close()
            return False
        self.clients.append(client)
        self.peers.append(peer)
        return True

    def _arrives(self, client: Peer) -> Peer | None:
        """The upstream's end, unless the client has an answer first."""
        ready, _, _ = select.select([client.sock, self.upstream], [], [], 10)
        if self.upstream not in ready:
            assert ready, "neither an answer nor a request upstream"
            return None
        peer = Peer(self.upstream.accept()[0])
        peer.read_until(b"\r\n\r\n")
        return peer

    def fill(self) -> int:
        """How many were running when the next was refused."""
        eventually(self._is_quiet)
        while self.begin():
            assert len(self.clients) < 10
        return len(self.clients)

    def _is_quiet(self) -> bool:
        return slots(self.server) == (len(self.clients), len(self.clients))

    def drop(self) -> None:
        for peer in (*self.clients, *self.peers):
            peer.close()
        self.clients, self.peers = [], []


def slots(server: ServerProcess) -> tuple[float, float]:
    """In use by running requests, and held by workers."""
    numbers = scrape(server)
    return numbers["limit_slots",], numbers["limit_slots_leased",]


def test_slots_survive_nothing_that_held_them(launch: Launch) -> None:
    """Clients, upstreams and workers are killed in turn; each time all slots are free again."""
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        host, port = upstream.getsockname()
        server = launch(upstream=f"{host}:{port}", arguments=WORKERS)
        server.start()
        held = Held(server, upstream, limited_token(server, max_concurrent=3))
        for _ in range(2):
            assert held.fill() == 3
            for client in held.clients:
                client.close()
            held.clients = []
            eventually(lambda: slots(server) == (0, 0))
            held.drop()
        assert held.fill() == 3
        for peer in held.peers:
            peer.send(ANSWER)
        for client in held.clients:
            assert client.read_message().start == b"HTTP/1.1 200 OK"
        eventually(lambda: slots(server) == (0, 0))
        held.drop()
        assert held.fill() == 3
        for peer in held.peers:
            peer.close()  # without an answer
        for client in held.clients:
            assert client.read_message().start == b"HTTP/1.1 502 Bad Gateway"
        eventually(lambda: slots(server) == (0, 0))
        held.drop()
        assert held.fill() == 3
        before = set(server.worker_pids)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(server.worker_pids) == 2 and not before & set(server.worker_pids))
        held.drop()
        eventually(lambda: slots(server) == (0, 0))
        assert held.fill() == 3
        held.drop()
        eventually(lambda: slots(server) == (0, 0))


@pytest.mark.parametrize("workers", [1, 2])
def test_reloaded_workers_count_what_the_old_ones_still_run(launch: Launch, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        host, port = upstream.getsockname()
        server = launch(upstream=f"{host}:{port}", arguments=["--workers", str(workers)])
        server.start()
        held = Held(server, upstream, limited_token(server, max_concurrent=3))
        assert [held.begin() for _ in range(4)] == [True, True, True, False]
        before = set(server.worker_pids)
        server.signal(signal.SIGHUP)
        eventually(
            lambda: len(server.worker_pids) == workers and not before & set(server.worker_pids)
        )
        assert not held.begin()
        held.drop()
        eventually(lambda: slots(server) == (0, 0))
        assert held.fill() == 3
        held.drop()
