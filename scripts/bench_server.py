"""A server for measurements: started in a home of its own, and looked at from outside.

What its processes hold is read from /proc, so this is for Linux.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from llm_proxy.home import Home
from llm_proxy.manage.client import ManagementClient
from llm_proxy.server.state import read_state

START_S, STOP_S = 30.0, 40.0
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """`with Server(providers_yaml) as server:` it serves inside, and is gone afterwards."""

    def __init__(
        self, providers: str, *, workers: int = 1, environ: Mapping[str, str] | None = None
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="llmp-"))
        self.home = Home(self._folder / "home")
        self.event_log = self._folder / "events.jsonl"
        self.log = self._folder / "log"
        (self._folder / "providers.yaml").write_text(providers)
        self._arguments = [
            *("--addr", "127.0.0.1:0", "--workers", str(workers), "--log-level", "warning"),
            *("--config", str(self._folder / "providers.yaml")),
            *("--file-event-log", str(self.event_log)),
        ]
        kept = {name: value for name, value in os.environ.items() if name in KEPT}
        self._environ = kept | {"LLM_PROXY_HOME": str(self.home.path)} | dict(environ or {})
        self._process: subprocess.Popen[bytes]
        self.host, self.port = "127.0.0.1", 0
        self.pids: dict[str, int] = {}

    def __enter__(self) -> Server:
        program = str(Path(sys.executable).with_name("llm-proxy"))
        command = [program, "server", "start", *self._arguments]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                sys.exit(f"the server did not start:\n{self.last_words}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.last_words = self.log.read_text()[-2000:]
        shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> int:
        """Its exit code, after a drain."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _is_ready(self) -> bool:
        state = read_state(self.home.state_file)
        if state is None or not state.workers:
            return False
        host, _, port = state.address.rpartition("//")[2].rpartition(":")
        self.host, self.port = host, int(port)
        self.pids = self.pids_now()
        with contextlib.suppress(OSError):
            self.get("/ready")
            return True
        return False

    def pids_now(self) -> dict[str, int]:
        """Of its processes, by their parts."""
        state = read_state(self.home.state_file)
        if state is None:
            return {}
        pids = {"supervisor": state.pid}
        for number, worker in enumerate(state.workers, 1):
            pids[f"worker {number}" if len(state.workers) > 1 else "worker"] = worker.pid
        return pids | ({"writer": state.writer_pid} if state.writer_pid is not None else {})

    def get(self, path: str) -> bytes:
        """From the control plane, through the public address."""
        with DIRECT.open(f"http://{self.host}:{self.port}{path}", timeout=10) as answer:
            content: bytes = answer.read()
            return content

    def new_token(self, *apis: str) -> str:
        """Of a new project with a key for each of these apis."""
        management_token = self.home.read_secret("management_token")
        assert management_token is not None
        keys = {api: "sk-upstream" for api in apis}
        url = f"http://{self.host}:{self.port}"
        with ManagementClient(url, management_token) as manage:
            fields = {"name": "measured", "api_keys": keys}
            project = manage.create_project(fields)
            token = manage.create_token({"project_id": project.id, "duration_minutes": 1440})
            return token.token


@contextlib.contextmanager
def script(name: str, *arguments: object) -> Iterator[int]:
    """A script beside this one that prints the port it listens on, until the end of the block."""
    path = str(Path(__file__).with_name(name))
    command = [sys.executable, path, *(str(argument) for argument in arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            sys.exit(f"{name} did not start")
        yield int(line)
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def resident(pid: int) -> int:
    """Bytes; 0 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def core_wait_seconds(pid: int) -> float:
    """How long it could have run, and no core was free."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def descriptors(pid: int) -> dict[str, str]:
    """What each open descriptor of a process is."""
    open_ones = {}
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                open_ones[entry.name] = str(entry.readlink())
    return open_ones


def raise_descriptor_limit(wanted: int) -> None:
    """For this process and those it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"at most {hard} descriptors may be open, {wanted} are needed: raise `ulimit -Hn`")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
