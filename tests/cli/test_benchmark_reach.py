from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from llm_proxy.benchmark.plan import Closed, Plan, Target, Workload
from llm_proxy.benchmark.presets import PRESETS
from llm_proxy.cli.benchmark_reach import look_at_targets
from llm_proxy.errors import LLMProxyError, NotAuthorised, Unreachable
from llm_proxy.secrets import Secret
from tests.end_to_end.mock_thread import MockThread

CHAT = PRESETS["chat"]


@pytest.fixture(scope="module")
def mock() -> Iterator[MockThread]:
    mock = MockThread()
    yield mock
    mock.close()


def plan_for(*urls: str, header: tuple[str, str] = ("X-A", "b"), key: str = "k") -> Plan:
    return Plan(
        targets=tuple(Target(base_url=url, keys=(Secret(key),) if key else ()) for url in urls),
        workload=Workload(
            headers=(("Content-Type", "application/json"), header),
            bodies=(CHAT.body(CHAT.asking("Hello")),),
        ),
        load=Closed(concurrency=1, requests=1),
        timeout_s=5,
    )


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """One request, with these bytes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def refusing(body: bytes) -> bytes:
    return b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_each_target_gets_one_request(mock: MockThread) -> None:
    before = len(mock.requests)
    url = f"http://{mock.address}"
    look_at_targets(plan_for(url, url))
    assert len(mock.requests) == before + 2
    assert (b"Authorization", b"Bearer k") in mock.requests[-1].headers


def test_stream_is_reached_by_its_head(mock: MockThread) -> None:
    plan = plan_for(f"http://{mock.address}", header=("X-Mock-Tokens", "500"))
    look_at_targets(plan)


def test_nobody_there_is_unreachable(mock: MockThread, deaf_address: str) -> None:
    gone = f"http://{deaf_address}"
    with pytest.raises(
        Unreachable,
        match=rf"--base-url {gone} can't be reached \(Connection refused\); is it running",
    ):
        look_at_targets(plan_for(gone))
    with pytest.raises(Unreachable, match=f"--direct-url {gone}"):
        look_at_targets(plan_for(f"http://{mock.address}", gone))


def test_target_that_says_nothing_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        plan = plan_for(url)
        short = Plan(targets=plan.targets, workload=plan.workload, load=plan.load, timeout_s=0.05)
        with pytest.raises(Unreachable, match=r"didn't answer within 0.05 s; .*--timeout"):
            look_at_targets(short)


@pytest.mark.parametrize("status", ["401", "403"])
def test_refused_key_says_what_to_do(status: str, mock: MockThread) -> None:
    url = f"http://{mock.address}"
    refused = ("X-Mock-Status", status)
    with pytest.raises(NotAuthorised, match=f"answered {status}: .*is the token right"):
        look_at_targets(plan_for(url, header=refused))


def test_missing_key_says_where_to_give_it(mock: MockThread) -> None:
    with pytest.raises(NotAuthorised, match="--token, or PROXY_TOKEN"):
        look_at_targets(plan_for(f"http://{mock.address}", key=""))


@pytest.mark.parametrize("status", ["400", "404", "413"])
def test_answer_that_every_request_would_get_stops(status: str, mock: MockThread) -> None:
    plan = plan_for(f"http://{mock.address}", header=("X-Mock-Status", status))
    with pytest.raises(LLMProxyError, match=f"answered {status}: .") as caught:
        look_at_targets(plan)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("status", ["429", "500", "503"])
def test_what_may_pass_is_a_warning(
    status: str, mock: MockThread, capsys: pytest.CaptureFixture[str]
) -> None:
    look_at_targets(plan_for(f"http://{mock.address}", header=("X-Mock-Status", status)))
    assert f"answered {status}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"plain\x1b[31m words\n", "plain [31m words"),
        (b'{"error": "a sentence"}', "a sentence"),
        (b'{"error": {"message": "deeper"}}', "deeper"),
        (b'{"detail": 1}', '{"detail": 1}'),
        (b"", "Bad"),
        (b"x" * 100_000, "x" * 200 + " "),
    ],
)
def test_what_an_answer_says_is_shown_on_one_line(body: bytes, shown: str) -> None:
    with answering(refusing(body)) as url, pytest.raises(LLMProxyError) as caught:
        look_at_targets(plan_for(url))
    assert f"answered 400: {shown}" in str(caught.value)


def test_key_that_an_answer_repeats_is_not_shown() -> None:
    with answering(refusing(b"no such key: sk-s3cret!")) as url, pytest.raises(LLMProxyError) as e:
        look_at_targets(plan_for(url, key="sk-s3cret"))
    assert "s3cret" not in str(e.value)
    assert "no such key: ***!" in str(e.value)


def test_redirect_is_not_measured() -> None:
    redirect = b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
    with answering(redirect) as url, pytest.raises(LLMProxyError, match="301, a redirect"):
        look_at_targets(plan_for(url))


def test_what_is_no_http_is_unreachable() -> None:
    with answering(b"SSH-2.0\r\n") as url, pytest.raises(Unreachable, match="can't be reached"):
        look_at_targets(plan_for(url))


@pytest.mark.parametrize("piece", [b"X: y\r\n", b"\r\nHTTP/1.1 102 Processing\r\n"])
def test_head_without_end_is_unreachable(piece: bytes) -> None:
    gone = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            connection.sendall(b"HTTP/1.1 102 Processing\r\n")
            while not gone.wait(0.01):
                connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        plan = plan_for(f"http://127.0.0.1:{listener.getsockname()[1]}")
        short = Plan(targets=plan.targets, workload=plan.workload, load=plan.load, timeout_s=0.1)
        try:
            with pytest.raises(Unreachable, match=r"didn't answer within 0.1 s"):
                look_at_targets(short)
        finally:
            gone.set()
            thread.join(10)
