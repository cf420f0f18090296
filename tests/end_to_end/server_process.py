"""A real `llm-proxy server start` with a home of its own; what it started is gone afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from llm_proxy.home import Home
from llm_proxy.manage.client import ManagementClient
from llm_proxy.secrets import Secret
from llm_proxy.server.state import ServerState, read_state
from llm_proxy.settings import SETTINGS

COMMAND = (sys.executable, "-P", "-m", "llm_proxy")
_READY = re.compile(r"is ready on (?:https?://)?(\S+)$")
_START_S = 60.0
_STOP_S = 30.0
_ENDPOINTS = """allowed_endpoints: ["/v1/*"]
    allowed_methods: [GET, POST, DELETE]
    circuit_breaker: {circuit_breaker}"""
PROVIDERS = f"""\
default_api: openai
apis:
  openai:
    base_url: http://{{upstream}}
    {_ENDPOINTS}
  anthropic:
    base_url: http://{{upstream}}
    auth: {{{{header: x-api-key, scheme: ""}}}}
    {_ENDPOINTS}
  strict:
    base_url: http://{{upstream}}
    {_ENDPOINTS}
    param_whitelist: {{{{model: ["gpt-4*"]}}}}
  impatient:
    base_url: http://{{upstream}}
    {_ENDPOINTS}
    timeouts: {{{{response_header: 100ms}}}}
  narrow:
    base_url: http://{{upstream}}
    {_ENDPOINTS}
    timeouts: {{{{connect: 100ms}}}}
    connection: {{{{max_conns: 1}}}}
  gone:
    base_url: http://127.0.0.1:1
    {_ENDPOINTS}
"""


class ServerProcess:
    def __init__(
        self,
        folder: Path,
        *,
        upstream: str = "127.0.0.1:1",
        arguments: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        circuit_breaker: str = "{failures: 0}",
    ) -> None:
        """`upstream` is the address that all apis forward to; nothing runs before `start`.

        By default no circuit opens: tests that make upstreams fail share a server.
        """
        self.home = Home(folder / "home")
        self.providers_file = folder / "providers.yaml"
        self.providers_file.write_text(
            PROVIDERS.format(upstream=upstream, circuit_breaker=circuit_breaker)
        )
        self.event_log = self.home.path / "events.jsonl"
        # Its path must be short: it holds the folder of the private sockets.
        self.runtime = Path(tempfile.mkdtemp(prefix="llmp-"))
        self.environ = command_environment(self.home, self.runtime) | dict(environ or {})
        self.arguments = [
            *("--addr", "127.0.0.1:0", "--config", str(self.providers_file)),
            *("--file-event-log", str(self.event_log), *arguments),
        ]
        self.address = ""
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._stderr: list[str] = []
        self._has_answered = threading.Event()
        self._children: set[int] = set()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    @property
    def stderr(self) -> str:
        return "".join(self._stderr)

    @property
    def state(self) -> ServerState:
        state = read_state(self.home.state_file)
        assert state is not None
        return state

    @property
    def worker_pids(self) -> list[int]:
        return [worker.pid for worker in self.state.workers]

    @property
    def management_token(self) -> Secret:
        given = self.environ.get("MANAGEMENT_TOKEN")
        token = Secret(given) if given else self.home.read_secret("management_token")
        assert token is not None
        return token

    def start(self) -> None:
        """Returns when it serves; fails with what it said when it doesn't."""
        if self._reader is not None:
            self._reader.join(_STOP_S)  # of the process before
        self._has_answered.clear()
        self._process = subprocess.Popen(
            [*COMMAND, "server", "start", *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=_without_coverage(self.environ),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=[self._process], daemon=True)
        self._reader.start()
        assert self._has_answered.wait(_START_S), self.stderr
        assert self.address, self.stderr
        self._note_children()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.address = ""
        for line in process.stderr:
            self._stderr.append(line)
            if found := _READY.search(line.rstrip()):
                self.address = found[1]
            if line.startswith("Ctrl-C"):
                self._has_answered.set()
        self._has_answered.set()
        process.stderr.close()

    def manage(self) -> ManagementClient:
        return ManagementClient(self.url, self.management_token)

    def add_token(self, upstream_key: str = "sk-upstream-0123456789") -> str:
        """Of a new project, whose only key is for the api openai."""
        with self.manage() as manage:
            fields = {"name": "one", "api_keys": {"openai": upstream_key}}
            project = manage.create_project(fields)
            return manage.create_token({"project_id": project.id, "duration_minutes": 60}).token

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def client(self, token: str = "", **headers: str) -> httpx.Client:
        given = {"Authorization": f"Bearer {token}"} if token else {}
        # Without TLS there is nothing to verify, and reading the roots takes 30 ms.
        return httpx.Client(
            base_url=self.url,
            headers={**given, **headers},
            trust_env=False,
            verify=False,
            timeout=30,
        )

    def stop(self) -> int:
        """Drains; the exit code, when nothing of it is left."""
        self._note_children()
        self.signal(signal.SIGTERM)
        code = self.process.wait(_STOP_S)
        self.wait_until_all_gone()
        return code

    def wait_until_all_gone(self, *, within_s: float = _STOP_S) -> None:
        """Every process that it started has its stderr, so the end of that is the end of all."""
        assert self._reader is not None
        self._reader.join(within_s)
        assert not self._reader.is_alive(), "a process of the server outlived it"

    def destroy(self) -> None:
        """However it is doing."""
        self._note_children()
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            self._reader.join(2)
            if self._reader.is_alive():  # only then may their pids not be another's already
                for pid in self._children:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._reader.join(2)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def _note_children(self) -> None:
        state = None
        with suppress(OSError):  # the home of a test may be no folder
            state = read_state(self.home.state_file)
        if state is not None:
            self._children |= {worker.pid for worker in state.workers}
            self._children |= {state.writer_pid} - {None}  # type: ignore[arg-type]

    def records(self) -> list[dict[str, Any]]:
        """The lines of the event log so far."""
        lines = self.event_log.read_bytes().split(b"\n")[:-1]
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]


def _without_coverage(environ: Mapping[str, str]) -> dict[str, str]:
    """It would double what a server takes, and what a server runs is measured by other tests."""
    return {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}


def command_environment(home: Home, runtime: Path) -> dict[str, str]:
    """That of whoever runs the tests, without a setting in it."""
    settings = {setting.env for setting in SETTINGS}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in settings
        and not name.startswith("LLM_PROXY_")
        and not name.upper().endswith("_PROXY")
    }
    return kept | {"LLM_PROXY_HOME": str(home.path), "XDG_RUNTIME_DIR": str(runtime)}


def run_command(
    environ: Mapping[str, str], *arguments: str, stdin: str = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    """One command of llm-proxy, to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(environ),
        **options,
    )
