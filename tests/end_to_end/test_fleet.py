"""Two servers on one PostgreSQL and one Redis: rates and concurrency hold in total."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.secrets import new_encryption_key
from llm_proxy.server.fleet.slots import KEPT_S
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.server_process import ServerProcess, run_command
from tests.end_to_end.test_metrics import ask, scrape
from tests.end_to_end.test_rates import Held, limited_token
from tests.end_to_end.waiting import eventually
from tests.redis_server import RedisServer

Fleet = Callable[..., list[ServerProcess]]


def _use_fleet_scope(server: ServerProcess) -> None:
    text = server.providers_file.read_text()
    server.providers_file.write_text(f"{text}limits: {{scope: fleet}}\n")


@pytest.fixture
def start_fleet(
    postgres_url: DatabaseUrl, redis_server: RedisServer, tmp_path: Path
) -> Iterator[Fleet]:
    """Starts servers with one database and one Redis."""
    made: list[ServerProcess] = []

    def start(*, upstream: str, **environ: str) -> list[ServerProcess]:
        given = {
            "DATABASE_URL": postgres_url.reveal(),
            "ENCRYPTION_KEY": new_encryption_key().reveal(),
            "MANAGEMENT_TOKEN": "the-management-token-of-both",
            "REDIS_URL": redis_server.url,
        }
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            made.append(ServerProcess(folder, upstream=upstream, environ=given | environ))
            _use_fleet_scope(made[-1])
            made[-1].start()
        return made

    yield start
    for server in made:
        server.destroy()


def kill_whole(server: ServerProcess) -> None:
    for pid in (server.state.pid, *server.worker_pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()


def statuses(servers: list[ServerProcess], token: str, *, each: int) -> Counter[int]:
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda server: ask(server, token).status_code, servers * each)
        return Counter(answers)


def redis_check(server: ServerProcess) -> tuple[str, str, int]:
    answer = httpx.get(f"{server.url}/health", trust_env=False, verify=False)
    ready = httpx.get(f"{server.url}/ready", trust_env=False, verify=False)
    content = answer.json()
    return content["status"], content["checks"]["redis"], ready.status_code


def test_rate_holds_in_total_and_while_redis_is_away_on_each_server(
    start_fleet: Fleet, redis_server: RedisServer, mock: MockThread
) -> None:
    servers = start_fleet(upstream=mock.address)
    token = limited_token(servers[0], rate_limit="20/h")
    assert statuses(servers, token, each=25) == {200: 20, 429: 30}
    assert redis_check(servers[0]) == ("ok", "ok", 200)

    redis_server.kill()
    fresh = [limited_token_of(servers[0], name=name, rate_limit="10/h") for name in ("a", "b")]
    for one in fresh:
        assert statuses(servers, one, each=25) == {200: 20, 429: 30}  # each host lets ten pass
    assert redis_check(servers[0]) == ("degraded", "unavailable", 200)
    assert scrape(servers[0])["redis_up",] == 0

    redis_server.start()
    eventually(lambda: redis_check(servers[0])[1] == redis_check(servers[1])[1] == "ok")
    again = limited_token_of(servers[0], name="c", rate_limit="10/h")
    assert statuses(servers, again, each=20) == {200: 10, 429: 30}


def limited_token_of(server: ServerProcess, *, name: str, **limits: object) -> str:
    with server.manage() as manage:
        fields = {"name": name, "api_keys": {"openai": "sk-upstream-1"}}
        project = manage.create_project(fields)
        made = {"project_id": project.id, "duration_minutes": 60, **limits}
        return manage.create_token(made).token


def test_closed_policy_refuses_what_nobody_can_count(
    start_fleet: Fleet, redis_server: RedisServer, mock: MockThread
) -> None:
    servers = start_fleet(upstream=mock.address, REDIS_FAIL="closed")
    limited = limited_token(servers[0], rate_limit="100/h")
    free = limited_token_of(servers[0], name="free")
    assert statuses(servers, limited, each=2) == {200: 4}
    redis_server.pause()
    eventually(lambda: ask(servers[0], limited).status_code != 200)  # one may have been in time
    refused = ask(servers[0], limited)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "limits_unavailable"
    assert refused.headers["Retry-After"] == "1"
    assert ask(servers[0], free).status_code == 200
    eventually(lambda: redis_check(servers[0]) == ("unhealthy", "unavailable", 503))
    redis_server.resume()
    eventually(lambda: statuses(servers, limited, each=1) == {200: 2})


def test_slots_are_shared_and_those_of_a_dead_server_are_free_after_a_while(
    start_fleet: Fleet,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        host, port = upstream.getsockname()
        one, other = start_fleet(upstream=f"{host}:{port}")
        token = limited_token(one, max_concurrent=3)
        held, rest = Held(one, upstream, token), Held(other, upstream, token)
        assert held.begin()
        assert held.begin()
        eventually(lambda: rest.begin() or True)
        assert len(rest.clients) == 1
        assert not rest.begin()
        assert not held.begin()

        killed_at = time.monotonic()
        kill_whole(one)
        assert not rest.begin()
        eventually(rest.begin, within_s=KEPT_S + 30)
        assert time.monotonic() - killed_at > 5  # it might have been alive
        assert rest.begin()
        assert not rest.begin()
        held.drop()
        rest.drop()
        eventually(lambda: scrape(other)["limit_slots_leased",] == 0)


def test_fleet_without_redis_does_not_start(
    launch: Callable[..., ServerProcess], deaf_address: str
) -> None:
    server = launch()
    _use_fleet_scope(server)
    result = run_command(server.environ, "server", "start", *server.arguments)
    assert result.returncode == 1
    assert "REDIS_URL or REDIS_ADDR" in result.stderr
    environ = {**server.environ, "REDIS_ADDR": deaf_address, "REDIS_FAIL": "closed"}
    result = run_command(environ, "server", "start", *server.arguments)
    assert result.returncode == 1
    assert f"Redis at {deaf_address} can't be used" in result.stderr
