"""The whole demo as a process, as somebody sees it who tries llm-proxy for the first time."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

TIMEOUT_S = 60


class Demo:
    """A running demo whose temporary files lie in a folder of the test."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._printed: list[str] = []
        self._is_up = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "llm_proxy", "demo", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._printed.append(line)
            if line.startswith("Ctrl-C"):
                self._is_up.set()
        self._is_up.set()
        self.process.stdout.close()

    @property
    def printed(self) -> str:
        return "".join(self._printed)

    def wait_until_up(self) -> None:
        assert self._is_up.wait(TIMEOUT_S), self.printed
        assert self.process.poll() is None, self.printed

    def wait(self) -> int:
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code

    def destroy(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(15)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="llmp-") as name:  # short: it holds sockets
        yield Path(name)


def url_in(printed: str) -> str:
    found = re.search(r"llm-proxy runs at (\S+)", printed)
    assert found is not None
    return found[1]


def assert_nothing_is_left(demo: Demo) -> None:
    assert list(demo.folder.iterdir()) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url_in(demo.printed)}/ready", trust_env=False)


def test_round_trip_is_shown_and_leaves_nothing(folder: Path) -> None:
    demo = Demo(folder, "--once")
    try:
        assert demo.wait() == 0, demo.printed
    finally:
        demo.destroy()
    printed = demo.printed
    assert re.search(r"A withering token, .*: sk-[\w-]{32}\n", printed)
    assert 'llm  You said: "What does a proxy in between change?"' in printed
    assert "1 of 1000 requests used" in printed
    assert re.search(r"request +POST /v1/chat/completions → 200\n", printed)
    assert re.search(r"model +gpt-4o-mini\n", printed)
    assert re.search(r"The proxy adds -?\d+ µs to a request", printed)
    assert "\33[" not in printed  # colours are for terminals
    assert "Ctrl-C ends it" not in printed
    assert_nothing_is_left(demo)


def test_lines_to_try_work_as_printed_until_ctrl_c(folder: Path) -> None:
    demo = Demo(folder)
    try:
        demo.wait_until_up()
        printed = demo.printed
        assert 'You said: \\"Hello\\"' in run_curl_line(printed)
        assert run_openai_lines(printed).startswith('You said: "Hello"')
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait() == 0, demo.printed
    finally:
        demo.destroy()
    assert "Everything is stopped" in demo.printed
    assert_nothing_is_left(demo)


def test_termination_cleans_up_too(folder: Path) -> None:
    demo = Demo(folder)
    try:
        demo.wait_until_up()
        demo.process.send_signal(signal.SIGTERM)
        assert demo.wait() == 0, demo.printed
    finally:
        demo.destroy()
    assert_nothing_is_left(demo)


def test_part_that_does_not_start_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_PROXY_TYPO", "1")  # the mock doesn't look, but the server does
    demo = Demo(folder, "--once")
    try:
        assert demo.wait() == 1, demo.printed
    finally:
        demo.destroy()
    (line,) = demo.printed.splitlines()
    assert line.startswith("Error: the server did not start: ")
    assert "LLM_PROXY_TYPO is no setting" in line
    assert list(folder.iterdir()) == []


def run_curl_line(printed: str) -> str:
    """Through curl itself, or what it would do where there is none."""
    start = printed.index("  curl ")
    words = shlex.split(printed[start : printed.index("\n\n", start)].replace("\\\n", " "))
    if (curl := shutil.which("curl")) is not None:
        command = [curl, "--silent", "--noproxy", "*", *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    headers = {name: value for name, value in (word.split(": ", 1) for word in words[3:7:2])}
    return httpx.post(words[1], content=words[-1], headers=headers, trust_env=False).text


def run_openai_lines(printed: str) -> str:
    """The SDK, with the address and the token that the lines have."""
    line = next(line for line in printed.splitlines() if "= OpenAI(" in line)
    found = re.search(r'base_url="([^"]+)", api_key="([^"]+)"', line)
    assert found is not None
    with openai.OpenAI(base_url=found[1], api_key=found[2], max_retries=0) as client:
        return client.responses.create(model="gpt-4o-mini", input="Hello").output_text
