"""Chats as processes: on a terminal, and in a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_proxy.benchmark.mock_options import MockOptions
from tests.chat.serving import SAID, SSE_HEAD, answering, plain, playing
from tests.cli.openai_terminal import OpenAITerminal
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.raw_upstream import Peer, RawUpstream

TOKEN = "sk-token-of-tests-0123"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockThread]:
    mock = MockThread()
    yield mock
    mock.close()


@pytest.fixture(scope="module")
def slow_mock() -> Iterator[MockThread]:
    mock = MockThread(MockOptions(tokens_per_second=5))
    yield mock
    mock.close()


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    upstream = RawUpstream()
    yield upstream
    upstream.close()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    home = {"LLM_PROXY_HOME": str(tmp_path / "home"), "PROXY_TOKEN": TOKEN}
    return {**os.environ, **home}


Open = Callable[..., OpenAITerminal]


@pytest.fixture
def open_terminal(environ: dict[str, str]) -> Iterator[Open]:
    opened: list[OpenAITerminal] = []

    def start(address: str, *arguments: str) -> OpenAITerminal:
        environ["PROXY_URL"] = f"http://{address}"
        opened.append(OpenAITerminal(*arguments, environ=environ))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def _pipe(
    environ: dict[str, str], address: str, *arguments: str, stdin: bytes = b"hi"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "llm_proxy", "openai", "chat", *arguments],
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
        env={**environ, "PROXY_URL": f"http://{address}"},
    )


def test_session_on_a_terminal(open_terminal: Open, mock: MockThread, tmp_path: Path) -> None:
    terminal = open_terminal(mock.address)
    terminal.read_until("Chatting with gpt-4.1-mini at http://")
    terminal.read_until("> ")
    terminal.send("Say **hello**\r")
    assert 'You said: "Say hello".' in terminal.read_until("tokens in")
    terminal.read_until("> ")
    terminal.send(f"/save {tmp_path}/chat.json\r")
    terminal.read_until("Saved to")
    terminal.read_until("> ")
    terminal.send("exit\r")
    assert terminal.wait() == 0
    history = tmp_path / "home" / "chat-history.jsonl"
    assert [json.loads(line) for line in history.read_text().splitlines()] == [
        "Say **hello**",
        f"/save {tmp_path}/chat.json",
        "exit",
    ]
    assert history.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_stops_the_answer_and_the_session_goes_on(
    open_terminal: Open, slow_mock: MockThread
) -> None:
    terminal = open_terminal(slow_mock.address, "--no-history")
    terminal.read_until("> ")
    terminal.send("one two three\r")
    terminal.read_until("You said")
    terminal.send("\x03")
    terminal.read_until("Stopped: what came is kept.")
    terminal.read_until("> ")
    terminal.send("/usage\r")
    terminal.read_until("0, 1 stopped")
    terminal.read_until("> ")
    terminal.send("\x03")
    terminal.read_until("Ctrl-C again leaves")
    terminal.read_until("> ")
    terminal.send("\x03")
    assert terminal.wait() == 130


def test_terminal_is_left_as_it_was_by_sigterm(open_terminal: Open, slow_mock: MockThread) -> None:
    terminal = _answering(open_terminal, slow_mock)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.wait() == 143
    assert terminal.shows_cursor
    assert "Traceback" not in terminal.shown


def test_terminal_is_left_as_it_was_by_ctrl_backslash(
    open_terminal: Open, slow_mock: MockThread
) -> None:
    terminal = _answering(open_terminal, slow_mock)
    assert not terminal.shows_cursor
    terminal.send("\x1c")
    assert terminal.wait() == 131
    assert terminal.shows_cursor
    assert "Traceback" not in terminal.shown


def _answering(open_terminal: Open, mock: MockThread) -> OpenAITerminal:
    terminal = open_terminal(mock.address)
    terminal.read_until("> ")
    terminal.send("one two three\r")
    terminal.read_until("You said")
    return terminal


def test_home_that_cannot_be_used_is_told_and_ends_nothing(
    open_terminal: Open, mock: MockThread, environ: dict[str, str]
) -> None:
    Path(environ["LLM_PROXY_HOME"]).write_text("a file")
    terminal = open_terminal(mock.address)
    terminal.read_until("What is typed isn't kept")
    terminal.read_until("> ")
    terminal.send("\x04")
    assert terminal.wait() == 0


def test_pipe_gets_the_answer_and_nothing_else(environ: dict[str, str], mock: MockThread) -> None:
    done = _pipe(environ, mock.address, "--max-tokens", "4", stdin=b"one two\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b'You said: "one two".\n'


def test_pipe_gets_utf_8_whatever_the_locale_says(
    environ: dict[str, str], mock: MockThread
) -> None:
    environ["PYTHONIOENCODING"] = "ascii"
    done = _pipe(environ, mock.address, stdin="é".encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert "é" in done.stdout.decode()


@pytest.mark.parametrize("option", ["--system", "--model"])
def test_argument_that_is_not_utf_8_exits_2(
    environ: dict[str, str], mock: MockThread, option: str
) -> None:
    done = _pipe(environ, mock.address, option, os.fsdecode(b"a\xff"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"must be UTF-8" in done.stderr


def test_token_may_come_before_the_question(environ: dict[str, str], mock: MockThread) -> None:
    stdin = b"sk-from-stdin\none\n"
    done = _pipe(environ, mock.address, "--token", "-", "--max-tokens", "3", stdin=stdin)
    assert (done.returncode, done.stdout) == (0, b'You said: "one".\n')
    headers = {name.lower(): value for name, value in mock.requests[-1].headers}
    assert headers[b"authorization"] == b"Bearer sk-from-stdin"


def test_verbose_shows_the_exchange_without_the_token(
    environ: dict[str, str], mock: MockThread
) -> None:
    done = _pipe(environ, mock.address, "-v", "--no-stream")
    assert done.returncode == 0
    assert b'"model": "gpt-4.1-mini"' in done.stderr
    assert b'"status": 200' in done.stderr
    assert TOKEN.encode() not in done.stderr


@pytest.mark.parametrize(
    ("answer", "code", "out", "words"),
    [
        (plain(b"401 Unauthorized", b""), 3, b"", b"Error: the token was refused"),
        (plain(b"500 Oh", b"out of order"), 1, b"", b"500: out of order"),
        (SSE_HEAD + SAID % b"half", 1, b"half\n", b"Error: the answer broke off"),
    ],
)
def test_failure_in_a_pipe_is_a_sentence_and_an_exit_code(
    environ: dict[str, str],
    upstream: RawUpstream,
    answer: bytes,
    code: int,
    out: bytes,
    words: bytes,
) -> None:
    with answering(upstream, answer):
        done = _pipe(environ, upstream.address)
    assert (done.returncode, done.stdout) == (code, out)
    assert words in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_nobody_there_exits_5(environ: dict[str, str]) -> None:
    done = _pipe(environ, "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"no server can be reached" in done.stderr


@pytest.mark.parametrize(("stdin", "code"), [(b" \n", 2), (b"\xff", 1)])
def test_no_question_is_asked_of_nothing(
    environ: dict[str, str], mock: MockThread, stdin: bytes, code: int
) -> None:
    done = _pipe(environ, mock.address, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, b"")
    assert b"stdin" in done.stderr


def _streaming(environ: dict[str, str], address: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_proxy", "openai", "chat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environ, "PROXY_URL": f"http://{address}"},
    )
    assert process.stdin is not None
    process.stdin.write(b"hi")
    process.stdin.close()
    process.stdin = None
    return process


def test_answer_comes_through_a_pipe_as_it_is_written_and_ctrl_c_ends_it(
    environ: dict[str, str], slow_mock: MockThread
) -> None:
    with _streaming(environ, slow_mock.address) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"You"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_reader_that_has_gone_is_no_failure_to_talk_about(
    environ: dict[str, str], upstream: RawUpstream
) -> None:
    def talk_on(peer: Peer) -> None:
        peer.read_message()
        peer.send(SSE_HEAD + SAID % b"one ")
        assert process.stdout is not None
        assert process.stdout.read(4) == b"one "
        process.stdout.close()
        peer.send(SAID % b"two")
        peer.read_rest()

    with _streaming(environ, upstream.address) as process:
        with playing(upstream, talk_on):
            assert process.wait(20) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""
