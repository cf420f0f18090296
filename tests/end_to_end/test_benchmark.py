"""`llm-proxy benchmark` as people run it: alone on a machine, and ended early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.home import Home
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.server_process import COMMAND, command_environment, run_command
from tests.end_to_end.waiting import eventually


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="llmp-") as runtime:  # short: it holds sockets
        yield command_environment(Home(tmp_path / "home"), Path(runtime))


@pytest.fixture
def own_mock() -> Iterator[MockThread]:
    mock = MockThread()
    yield mock
    mock.close()


def test_fresh_machine_measures_what_the_proxy_adds(environ: dict[str, str]) -> None:
    done = run_command(
        environ, "benchmark", "--requests", "40", "-c", "2", "--warm-up", "0s", "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["workload"]["is_throwaway"] is True
    assert (report["requests"], report["errors"], report["direct"]["errors"]) == (40, 0, 0)
    assert report["added_latency_ms"]["count"] == 40
    assert report["fidelity"]["verdict"] == "equal"
    assert report["server_timing"]["answers"] == 40
    assert report["process"]["memory_before_mib"] > 0
    assert report["command"] == (
        "llm-proxy benchmark --concurrency 2 --requests 40 --warm-up 0s --json"
    )
    assert not (Path(environ["LLM_PROXY_HOME"])).exists()


def test_upstream_sees_every_hang_up_through_the_proxy(environ: dict[str, str]) -> None:
    streams = ("--stream", "--cancel-rate", "100%", "--requests", "6", "-c", "3")
    done = run_command(environ, "benchmark", *streams, "--warm-up", "0s", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["streams"]["cancelled"] == report["direct"]["streams"]["cancelled"] == 6
    assert report["hang_ups"] == {"sent": 6, "seen_upstream": 6}


def test_mock_is_measured_whatever_the_environment_names(environ: dict[str, str]) -> None:
    environ |= {"PROXY_URL": "https://api.example.com", "PROXY_TOKEN": "sk-not-for-the-mock"}
    search = ("--find-max", "--slo", "p99=1us", "--rate", "0.2/s", "--duration", "100ms")
    done = run_command(environ, "benchmark", "--mock", *search, "--warm-up", "0s", "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["workload"]["base_url"].startswith("http://127.0.0.1:")
    assert report["direct"] is None
    assert report["find_max"]["rate"] is None
    assert report["find_max"]["probes"][0]["rate"] == 0.2
    assert f"Missed: {report['find_max']['note']}" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_that_is_ended_is_reported(
    number: signal.Signals, environ: dict[str, str], own_mock: MockThread, tmp_path: Path
) -> None:
    arguments = ["--duration", "60s", "-c", "2", "--warm-up", "0s", "--token", "k", "--json"]
    csv = tmp_path / "requests.csv"
    process = subprocess.Popen(
        [
            *(*COMMAND, "benchmark", "--base-url", f"http://{own_mock.address}"),
            *(*arguments, "--csv", str(csv)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )
    try:
        eventually(lambda: len(own_mock.requests) > 10)
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    report: dict[str, Any] = json.loads(out)
    assert report["interrupted"] is True
    assert report["requests"] > 0
    assert report["duration_s"] < 30
    assert len(csv.read_text().splitlines()) == report["requests"] + 1
    assert "Traceback" not in err


def test_before_there_is_anything_to_report_nothing_is_printed(
    environ: dict[str, str], own_mock: MockThread
) -> None:
    process = subprocess.Popen(
        [
            *(*COMMAND, "benchmark", "--base-url", f"http://{own_mock.address}"),
            *("--warm-up", "60s", "--token", "k", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )
    try:
        eventually(lambda: len(own_mock.requests) > 10)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, "")
    assert err.endswith("Interrupted before there was anything to report.\n")
