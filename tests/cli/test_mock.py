from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import typer
from typer.testing import CliRunner

from llm_proxy.cli.mock import mock

app = typer.Typer()
app.command()(mock)

# The command by itself, without what else the command line has.
_PROGRAM = "import typer; from llm_proxy.cli.mock import mock; typer.run(mock)"


@contextmanager
def _running(*arguments: str, stdin: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A mock in a process of its own, and its address."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "--addr", "127.0.0.1:0", "--json", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None
            assert process.stdout is not None
            announced = json.loads(process.stdout.readline())
            assert announced["pid"] == process.pid
            yield process, announced["address"]
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_serves_until_a_signal_ends_it(number: signal.Signals, code: int) -> None:
    with _running() as (process, address):
        answer = httpx.get(
            f"http://{address}/v1/models", headers={"Authorization": "Bearer k"}, trust_env=False
        )
        assert answer.status_code == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert out == ""
    assert f"The mock listens on http://{address} (any key is accepted)" in err
    assert f"curl http://{address}/v1/chat/completions" in err
    assert "Traceback" not in err


def test_jitter_and_freezes_are_obeyed() -> None:
    # 1 ms of each 60 s: the test is over before.
    with _running("--jitter", "1ms", "--freeze", "60s:1ms") as (_, address):
        answer = httpx.get(
            f"http://{address}/v1/models", headers={"Authorization": "Bearer k"}, trust_env=False
        )
    assert answer.status_code == 200


def test_the_key_can_come_from_stdin_and_is_not_printed() -> None:
    with _running("--api-key", "-", stdin="sk-canary\n") as (process, address):
        url = f"http://{address}/v1/models"
        statuses = [
            httpx.get(url, headers={"Authorization": f"Bearer {key}"}, trust_env=False).status_code
            for key in ("sk-other", "sk-canary")
        ]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=10)
    assert statuses == [401, 200]
    assert "canary" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--addr", "8089"], "HOST:PORT"),
        (["--latency", "5x"], "isn't a duration"),
        (["--latency", "11m"], "between 0s and 600s"),
        (["--jitter", "5x"], "--jitter"),
        (["--jitter", "11m"], "the jitter must be between 0s and 600s"),
        (["--freeze", "10s"], "how often and how long, such as 10s:1s, not '10s'"),
        (["--freeze", "10s:x"], "--freeze"),
        (["--freeze", "1s:1s"], "shorter than the time from one to the next"),
        (["--tokens-per-second", "-1"], "--tokens-per-second"),
        (["--tokens-per-second", "inf"], "0 is as fast"),
        (["--api-key", ""], "API key is empty"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(app, ["--addr", address])
    assert result.exit_code == 1
    assert f"can't listen on {address}" in str(result.exception)


@pytest.mark.parametrize(
    "word",
    [
        *("Status", "Retry-After", "Delay", "Cut", "Encoding", "Tokens", "Stall", "Corrupt"),
        *("--latency", "--jitter", "--freeze", "127.0.0.1:8089"),
    ],
)
def test_help_names_everything_that_can_be_asked_for(word: str) -> None:
    help_text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
    assert word in help_text


def test_help_loads_no_server() -> None:
    program = (
        "import sys, llm_proxy.cli.mock;"
        "print([name for name in ('uvloop', 'httptools', 'brotli') if name in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ
    )
    assert found.stdout.strip() == "[]"
