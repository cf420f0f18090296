"""The mock and the server of a demo: real processes with a temporary home, gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_proxy.errors import LLMProxyError

READY_WITHIN_S: Final = 20.0
_ENDS_WITHIN_S: Final = 10.0
_COMMAND: Final = (sys.executable, "-P", "-m", "llm_proxy")
_PROVIDERS: Final = """\
default_api: openai
apis:
  openai:
    base_url: http://{mock}
    allowed_endpoints: ["/v1/*"]
    allowed_methods: [GET, POST, DELETE]
  anthropic:
    base_url: http://{mock}
    auth: {{header: x-api-key, scheme: ""}}
    allowed_endpoints: ["/v1/*"]
    allowed_methods: [GET, POST, DELETE]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoServers:
    home: Path
    mock_url: str
    proxy_url: str
    server_pid: int
    mock_pid: int

    @property
    def event_log(self) -> Path:
        return self.home / "events.jsonl"


@contextmanager
def demo_servers(
    home: Path, *, tokens_per_second: float, has_event_log: bool = True
) -> Iterator[DemoServers]:
    """Raises LLMProxyError with the reason when one of them doesn't start."""
    mock = _start(["mock", "--addr", "127.0.0.1:0", "--json"], home / "mock.log", tokens_per_second)
    try:
        mock_address = _mock_address(mock, home / "mock.log")
        (home / "providers.yaml").write_text(_PROVIDERS.format(mock=mock_address))
        server = _start(_server_arguments(home, has_event_log), home / "server.log")
        try:
            yield DemoServers(
                home=home,
                mock_url=f"http://{mock_address}",
                proxy_url=f"http://{_server_address(server, home)}",
                server_pid=server.pid,
                mock_pid=mock.pid,
            )
        finally:
            _end(server)
    finally:
        _end(mock)


def _server_arguments(home: Path, has_event_log: bool) -> list[str]:
    event_log = ["--file-event-log", str(home / "events.jsonl")] if has_event_log else []
    return [
        *("server", "start", "--addr", "127.0.0.1:0", "--config", str(home / "providers.yaml")),
        *("--db", str(home / "demo.db"), *event_log),
    ]


def _start(
    arguments: list[str], log: Path, tokens_per_second: float = 0
) -> subprocess.Popen[bytes]:
    """With an environment that holds no setting of whoever shows the demo."""
    from llm_proxy.cli.parent_death import ending_with_parent
    from llm_proxy.settings import SETTINGS

    settings = {setting.env for setting in SETTINGS}
    environ = {name: value for name, value in os.environ.items() if name not in settings}
    environ["LLM_PROXY_HOME"] = str(log.parent)
    if tokens_per_second:
        arguments = [*arguments, "--tokens-per-second", f"{tokens_per_second:g}"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*_COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if "--json" in arguments else output,
            stderr=output,
            env=environ,
            start_new_session=True,  # Ctrl-C is for us, who then end them in order
            preexec_fn=ending_with_parent(),
        )


def _mock_address(mock: subprocess.Popen[bytes], log: Path) -> str:
    assert mock.stdout is not None
    line = mock.stdout.readline()  # or EOF, when it doesn't start
    if not line:
        raise LLMProxyError(f"the mock did not start: {log.read_text().strip()}")
    return str(json.loads(line)["address"])


def _server_address(server: subprocess.Popen[bytes], home: Path) -> str:
    from llm_proxy.home import Home
    from llm_proxy.server.state import read_state

    deadline = time.monotonic() + READY_WITHIN_S
    while server.poll() is None and time.monotonic() < deadline:
        state = read_state(Home(home).state_file)
        if state is not None and state.pid == server.pid and state.workers:
            return state.address
        time.sleep(0.02)
    raise LLMProxyError(f"the server did not start: {(home / 'server.log').read_text().strip()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
