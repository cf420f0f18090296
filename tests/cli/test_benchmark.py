"""The command in this process, against a mock; its generators are processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_proxy.benchmark.report import encode_report
from tests.benchmark.reports import make_distribution, make_report
from tests.cli.conftest import Outcome, Run
from tests.end_to_end.mock_thread import MockThread

QUICK = ("--requests", "20", "--concurrency", "2", "--token", "sk-s3cret-token", "--json")

Benchmark = Callable[..., Outcome]


@pytest.fixture(scope="module")
def mock() -> Iterator[MockThread]:
    mock = MockThread()
    yield mock
    mock.close()


@pytest.fixture
def benchmark(llm_proxy: Run, mock: MockThread) -> Benchmark:
    """Twenty requests to the mock."""

    def run(*arguments: str, stdin: str = "") -> Outcome:
        url = f"http://{mock.address}"
        return llm_proxy("benchmark", "--base-url", url, *QUICK, *arguments, stdin=stdin)

    return run


def document_of(outcome: Outcome) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(outcome.out)
    return document


def test_report_is_one_json_document(benchmark: Benchmark) -> None:
    outcome = benchmark()
    report = document_of(outcome)
    assert outcome.exit_code == 0, outcome.err
    assert (report["requests"], report["errors"]) == (20, 0)
    assert report["requests_per_second"] > 0
    assert set(report["latency_ms"]) >= {"mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "max"}
    assert report["added_latency_ms"] is None
    assert report["load"]["description"] == "closed, 2 connections, 20 requests"
    assert report["seed"] == 1


def test_secrets_are_nowhere_in_it(benchmark: Benchmark, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    outcome = benchmark("-H", "X-Team-Key: also-s3cret", "--html", str(page))
    assert outcome.exit_code == 0, outcome.err
    assert "s3cret" not in outcome.out + outcome.err + page.read_text()
    command = document_of(outcome)["command"]
    assert "--token ***" in command
    assert "--requests 20" in command


def test_direct_target_is_measured_in_turns(
    benchmark: Benchmark, mock: MockThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-direct")
    direct = ("--direct-url", f"http://{mock.address}", "--direct-key-env", "UPSTREAM_KEY")
    report = document_of(benchmark(*direct))
    assert report["direct"]["requests"] == report["requests"] == 20
    assert report["added_latency_ms"]["count"] == 20
    assert report["fidelity"]["verdict"] == "equal"


def test_report_for_people_goes_to_stdout(llm_proxy: Run, mock: MockThread) -> None:
    url = f"http://{mock.address}"
    outcome = llm_proxy("benchmark", "--base-url", url, *QUICK[:-1])
    assert outcome.exit_code == 0, outcome.err
    assert "p99" in outcome.out
    assert "\x1b" not in outcome.out
    assert "forwards to a paid API" in outcome.err


def test_repeats_are_all_listed(benchmark: Benchmark) -> None:
    report = document_of(benchmark("--repeat", "3", "--requests", "10"))
    assert len(report["runs"]) == 3
    assert report["requests"] == 10


def test_streams_are_measured(benchmark: Benchmark) -> None:
    report = document_of(benchmark("--preset", "chat-stream"))
    assert report["workload"]["stream"] is True
    assert report["streams"]["tokens"] > 20
    assert report["streams"]["ttft_ms"]["count"] == 20


def test_several_prompts_and_tokens_take_turns(
    benchmark: Benchmark, tmp_path: Path, mock: MockThread
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('"one"\n"two"\n"three"\n')
    report = document_of(benchmark("--prompts", str(prompts), "--token", "sk-b"))
    assert (report["workload"]["bodies"], report["workload"]["tokens"]) == (3, 2)
    seen = {
        value for one in mock.requests for name, value in one.headers if name == b"Authorization"
    }
    assert {b"Bearer sk-s3cret-token", b"Bearer sk-b"} <= seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--slo", "p99=1us"), "p99 is"),
        (("-H", "X-Mock-Status: 500"), "the error rate is 100 %"),
    ],
)
def test_missed_limit_is_exit_code_1(
    arguments: tuple[str, ...], message: str, benchmark: Benchmark
) -> None:
    outcome = benchmark(*arguments)
    assert outcome.exit_code == 1
    assert f"Missed: {message}" in outcome.err
    assert not all(check["passed"] for check in document_of(outcome)["checks"])


def test_limits_that_are_met_are_exit_code_0(benchmark: Benchmark) -> None:
    outcome = benchmark("--slo", "p99=60s,rps=0.1", "--max-error-rate", "0%")
    assert outcome.exit_code == 0, outcome.err
    assert len(document_of(outcome)["checks"]) == 3


def test_requests_are_held_to_their_own_limits(benchmark: Benchmark, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    limits = ("--goodput", "latency=60s,first_byte=60s", "--slo", "goodput=100%")
    outcome = benchmark(*limits, "--jsonl", str(file))
    assert outcome.exit_code == 0, outcome.err
    document = document_of(outcome)
    assert document["goodput"]["limits"] == ["latency<=60000ms", "first_byte<=60000ms"]
    assert document["goodput"]["share"] == 1.0
    assert len(file.read_text().splitlines()) == document["requests"]
    assert benchmark("--goodput", "latency=1us", "--slo", "goodput=1%").exit_code == 1


def test_regression_is_exit_code_1(benchmark: Benchmark, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    fast = msgspec.structs.replace(make_report(), latency_ms=make_distribution(0.0001))
    old.write_bytes(encode_report(fast))
    junit = tmp_path / "report.xml"
    outcome = benchmark(
        *("--compare", str(old), "--max-regression", "p50=10%", "--junit", str(junit))
    )
    assert outcome.exit_code == 1
    assert "Missed: p50 was" in outcome.err
    assert document_of(outcome)["comparison"]["file"] == "old.json"
    assert "<failure" in junit.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--slo", "p98=1s"), "--slo"),
        (("--max-error-rate", "1"), "--max-error-rate"),
        (("--timeout", "never"), "--timeout"),
        (("--max-time", "0s"), "--max-time must be more than 0s"),
        (("--processes", "3"), "--processes 3 can't share"),
        (("--find-max",), "--find-max"),
        (("--goodput", "p99=1s"), "--goodput: 'p99=1s'"),
        (("--slo", "frontier.5ms=100"), "a limit on frontier.… needs --frontier"),
        (("--frontier", "1ms"), "--frontier and --requests contradict"),
        (("--slo", "goodput=95%"), "a limit on goodput needs --goodput"),
        (("--goodput", ""), "--goodput: '': a limit is written"),
        (("--goodput", "latency=1s,ttft=5ms"), "--goodput ttft=5ms needs --stream"),
        (("--slo", "goodput=150%", "--goodput", "latency=1s"), "a share is at most 100%"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: tuple[str, ...], message: str, benchmark: Benchmark
) -> None:
    outcome = benchmark(*arguments)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert message in outcome.err
    assert "\n" not in outcome.err.rstrip()


def test_search_with_limits_on_what_is_added_is_refused(llm_proxy: Run) -> None:
    for search in (("--find-max",), ("--frontier", "1ms")):
        outcome = llm_proxy("benchmark", *search, "--slo", "added.p99=1ms")
        assert outcome.exit_code == 2
        assert f"{search[0]} searches with the target alone" in outcome.err


def test_frontier_that_nothing_keeps_is_exit_code_1(llm_proxy: Run, mock: MockThread) -> None:
    search = ("--frontier", "0.001ms,1us", "--rate", "0.1/s", "--duration", "50ms")
    url, quick = f"http://{mock.address}", ("--token", "x", "--warm-up", "0s", "--json")
    assert llm_proxy("benchmark", "--base-url", url, *search, *quick).exit_code == 2  # twice
    search = ("--frontier", "0.002ms,1us", *search[2:])
    outcome = llm_proxy("benchmark", "--base-url", url, *search, *quick)
    assert outcome.exit_code == 1, outcome.err
    report = document_of(outcome)
    points = [(point["p99_limit_ms"], point["rate"]) for point in report["frontier"]["points"]]
    assert points == [(0.001, None), (0.002, None)]
    assert report["load"]["model"] == "frontier"
    assert [probe["rate"] for probe in report["frontier"]["probes"]] == [0.1, 0.1]
    assert "Missed: p99<=0.001ms: " in outcome.err  # for the rate, or on a busy machine the rig


def test_target_elsewhere_needs_a_yes(llm_proxy: Run) -> None:
    outcome = llm_proxy("benchmark", "--base-url", "https://api.example.com", "--token", "x")
    assert outcome.exit_code == 2
    assert "Up to 101 requests will be sent to api.example.com" in outcome.err
    assert "--yes" in outcome.err


def test_refused_token_is_exit_code_3(benchmark: Benchmark) -> None:
    outcome = benchmark("-H", "X-Mock-Status: 401")
    assert (outcome.exit_code, outcome.out) == (3, "")
    assert "is the token right" in outcome.err


def test_nobody_there_is_exit_code_5_and_leaves_no_file(llm_proxy: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    outcome = llm_proxy("benchmark", "--base-url", url, "--csv", str(tmp_path / "a.csv"))
    assert outcome.exit_code == 5
    assert "is it running" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_target_that_is_gone_after_it_answered_is_exit_code_5(llm_proxy: Run) -> None:
    def answer_once() -> None:
        with listener:
            connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=answer_once)
    thread.start()
    outcome = llm_proxy("benchmark", "--base-url", url, "--endpoint", "/", "-n", "2", "-c", "2")
    thread.join(10)
    assert outcome.exit_code == 5
    assert "could not be reached after that" in outcome.err
    assert "connect" in outcome.out


def test_target_that_ends_in_the_middle_is_not_passed(llm_proxy: Run) -> None:
    def answer_some() -> None:
        for count in (1, 50):  # the look before the run, and the run
            connection, _ = listener.accept()
            with connection:
                for _ in range(count):
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        listener.close()

    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=answer_some)
    thread.start()
    load = ("--duration", "2s", "--warm-up", "0s", "-c", "1", "--max-error-rate", "100%")
    outcome = llm_proxy("benchmark", "--base-url", url, "--endpoint", "/", *load)
    thread.join(10)
    assert outcome.exit_code == 5, outcome.out
    assert "could not be reached any more" in outcome.err


def test_process_that_is_not_there_is_named(benchmark: Benchmark) -> None:
    outcome = benchmark("--pid", "4194305")
    assert outcome.exit_code == 1
    assert "--pid 4194305: no such process" in outcome.err


def test_environment_names_the_target(
    llm_proxy: Run, mock: MockThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_URL", f"http://{mock.address}/v1")
    monkeypatch.setenv("PROXY_TOKEN", "sk-of-the-environment")
    report = document_of(llm_proxy("benchmark", "-n", "4", "-c", "2", "--json"))
    assert report["workload"]["base_url"] == f"http://{mock.address}"
    assert report["command"] == "llm-proxy benchmark --concurrency 2 --requests 4 --json"
    assert report["workload"]["tokens"] == 1


def test_report_on_a_full_disk_is_one_sentence(mock: MockThread, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "llm_proxy", "benchmark", "--base-url", f"http://{mock.address}"]
            + ["--requests", "2", "--token", "sk-token"],
            env={**os.environ, "LLM_PROXY_HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 1
    assert "couldn't be written to stdout: No space left on device" in process.stderr


def test_trace_is_replayed_and_what_it_leaves_out_is_told(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    record = {"request_id": "r", "endpoint": "/v1/models", "metadata": {}}
    lines = [{"timestamp": 5, **record}, *({"timestamp": at, "prompt": "x"} for at in (9, 20, 30))]
    trace.write_text("\n".join(map(json.dumps, lines)))
    outcome = benchmark("--replay", str(trace), "--speed", "0.5")
    assert outcome.exit_code == 0, outcome.err
    report = document_of(outcome)
    assert report["requests"] == 3
    assert report["load"]["model"] == "replay"
    assert report["load"]["description"] == "replay of trace.jsonl, 3 requests in 0.042 s"
    assert "Left out: 1 records of something else." in outcome.err
