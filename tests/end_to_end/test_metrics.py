"""Numbers and circuit breakers of a real server with several workers."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import httpx
from prometheus_client.parser import text_string_to_metric_families

from llm_proxy.manage.objects import Project
from tests.end_to_end.conftest import APIS, UPSTREAM_KEY, Launch
from tests.end_to_end.server_process import ServerProcess, run_command
from tests.end_to_end.waiting import eventually

REQUESTS = 60
MODELS = "/v1/models"
Numbers = dict[tuple[str, ...], float]


def scrape(server: ServerProcess) -> Numbers:
    """By name and values of the labels."""
    answer = get(f"{server.url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name.removeprefix("llm_proxy_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, verify=False)


def upstreams(server: ServerProcess) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = get(f"{server.url}/health").json()["checks"]["upstreams"]
    return found


def counters(numbers: Numbers) -> Numbers:
    rising = ("_total", "_bucket", "_count", "_sum")
    return {key: value for key, value in numbers.items() if key[0].endswith(rising)}


def new_token(server: ServerProcess, name: str = "one") -> str:
    with server.manage() as manage:
        keys = {api: f"{UPSTREAM_KEY.format(api=api)}-{name}" for api in APIS}
        project = manage.create_project({"name": name, "api_keys": keys})
        return manage.create_token({"project_id": project.id, "duration_minutes": 60}).token


def ask(server: ServerProcess, token: str, path: str = MODELS, **headers: str) -> httpx.Response:
    """Over a connection of its own, so that every worker gets some."""
    with server.client(token) as client:
        return client.get(path, headers={name.replace("_", "-"): v for name, v in headers.items()})


def ask_often(server: ServerProcess, token: str, times: int) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: ask(server, token), range(times)))
    assert {answer.status_code for answer in answers} == {200}


def has_only_risen(before: Numbers, after: Numbers) -> bool:
    return all(after.get(key, 0) >= value for key, value in counters(before).items())


def test_workers_are_added_up_exactly_and_never_go_back(launch: Launch) -> None:
    server = launch(arguments=["--workers", "2"])
    server.start()
    token = new_token(server)
    ask_often(server, token, REQUESTS)
    assert ask(server, "").status_code == 401
    seen = [scrape(server)]
    assert seen[0]["requests_total", "openai", "200"] == REQUESTS
    assert seen[0]["requests_total", "openai", "401"] == 1
    assert seen[0]["errors_total", "openai", "missing_token"] == 1
    assert seen[0]["request_duration_seconds_bucket", "openai", "+Inf"] == REQUESTS + 1
    assert seen[0]["upstream_seconds_count", "openai"] == REQUESTS
    assert seen[0]["workers",] == 2
    assert seen[0]["token_lookups_total", "found"] >= 2  # each worker's own
    killed, drained = server.worker_pids
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: killed not in server.worker_pids and len(server.worker_pids) == 2)
    seen.append(scrape(server))
    assert seen[1]["requests_total", "openai", "200"] == REQUESTS
    ask_often(server, token, REQUESTS)
    os.kill(drained, signal.SIGTERM)  # it tells its last numbers unasked
    eventually(lambda: drained not in server.worker_pids and len(server.worker_pids) == 2)
    seen.append(scrape(server))
    assert seen[2]["requests_total", "openai", "200"] == 2 * REQUESTS
    assert seen[2]["request_duration_seconds_count", "openai"] == 2 * REQUESTS + 1
    assert all(has_only_risen(before, after) for before, after in pairwise(seen))


def test_numbers_of_the_server_itself(server: ServerProcess, token: str) -> None:
    # What is known is forgotten when the change that made the token comes by.
    assert eventually(lambda: ask(server, token) and scrape(server)["tokens_known",] >= 1)
    found = scrape(server)
    assert found["uptime_seconds",] > 0
    assert found["upstream_connects_total", "openai"] >= 1
    assert found["client_connections_total",] >= 1
    assert found["records_dropped_total",] == 0
    for process in ("supervisor", "worker"):
        assert found["process_cpu_seconds_total", process] > 0
    if os.path.exists("/proc/self/statm"):  # noqa: PTH110
        for process in ("supervisor", "worker", "writer"):
            assert found["process_resident_memory_bytes", process] > 1 << 20
            assert found["process_open_fds", process] > 3


def test_no_label_tells_who_asked_for_what(
    server: ServerProcess, token: str, project: Project
) -> None:
    assert ask(server, token, "/v1/models?secret-query").status_code == 200
    assert ask(server, token, "/nothing/secret-path").status_code == 404
    text = get(f"{server.url}/metrics").text
    for secret in (token, "secret-query", "secret-path", MODELS, "sk-", project.id):
        assert secret not in text


def test_metrics_can_be_moved_and_are_where_the_management_api_is(launch: Launch) -> None:
    environ = {"METRICS_PATH": "/internal/numbers"}
    server = launch(arguments=["--manage-addr", "127.0.0.1:0"], environ=environ)
    server.start()
    private = f"http://{server.state.manage_address}"
    assert get(f"{private}/internal/numbers").status_code == 200
    for url in (f"{private}/metrics", f"{server.url}/metrics", f"{server.url}/internal/numbers"):
        answer = get(url)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_metrics_are_not_put_where_an_api_is(launch: Launch) -> None:
    server = launch(environ={"METRICS_PATH": "/openai/metrics"})
    done = run_command(server.environ, "server", "start", *server.arguments)
    assert done.returncode == 1
    assert "METRICS_PATH /openai/metrics lies under the paths of the api 'openai'" in done.stderr


def test_an_upstream_that_recovers_is_found_well_by_one_probe(launch: Launch) -> None:
    server = launch(circuit_breaker="{failures: 5, cooldown: 1500ms}")
    server.start()
    one, other = new_token(server, "one"), new_token(server, "other")
    for _ in range(10):
        assert ask(server, one, X_Mock_Status="401").status_code == 401
    assert ask(server, one).status_code == 200
    for _ in range(5):
        assert ask(server, one, X_Mock_Status="503").status_code == 503
    refused = ask(server, one)
    assert refused.json()["error"]["code"] == "circuit_open"
    assert refused.headers["Retry-After"] in ("1", "2")
    assert ask(server, other).status_code == 200  # its key is another
    eventually(lambda: upstreams(server)["openai"]["circuit"] == "half_open")
    with ThreadPoolExecutor(1) as threads:
        probe = threads.submit(ask, server, one, MODELS, X_Mock_Delay="2s")
        eventually(lambda: scrape(server)["requests_running",] == 1)
        assert [ask(server, one).status_code for _ in range(3)] == [503] * 3
        assert ask(server, other).status_code == 200
        assert probe.result().status_code == 200
    assert [ask(server, one).status_code for _ in range(6)] == [200] * 6
    assert upstreams(server)["openai"]["circuit"] == "closed"
    found = scrape(server)
    assert found["circuit_breaker_trips_total", "openai"] == 1
    assert found["errors_total", "openai", "circuit_open"] == 4
    assert found["upstream_errors_total", "openai", "status_503"] == 5


def test_an_upstream_that_nobody_listens_at_is_left_alone_and_that_is_told(launch: Launch) -> None:
    server = launch(circuit_breaker="{}")
    server.start()
    token = new_token(server)
    for _ in range(5):
        answer = ask(server, token, "/gone/v1/models")
        assert answer.json()["error"]["code"] == "upstream_unreachable"
    answer = ask(server, token, "/gone/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "circuit_open")
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert ask(server, token).status_code == 200
    found = scrape(server)
    assert found["upstream_errors_total", "gone", "upstream_unreachable"] == 5
    assert found["upstream_connect_failures_total", "gone"] >= 5
    assert found["circuit_breakers", "gone", "open"] == 1
    health = get(f"{server.url}/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    reason = "The upstream refused the connection"
    assert upstreams(server)["gone"]["last_failure"] == reason
    assert get(f"{server.url}/ready").status_code == 200
    done = run_command(server.environ, "server", "health")
    assert done.returncode == 0
    assert "/health  degraded, " in done.stdout
    assert f"gone: circuit open ({reason}, 20" in done.stdout
    done = run_command(server.environ, "server", "health", "--json")
    checks = json.loads(done.stdout)["health"]["checks"]
    assert checks["upstreams"]["gone"]["circuit"] == "open"
