"""The PID file: which process serves, with a lock that tells a live owner from a stale file."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from llm_proxy.errors import LLMProxyError

# Somebody who only asks `running_pid` holds the lock for an instant: try again before refusing.
_CLAIM_ATTEMPTS = 10
_RETRY_S = 0.02
_UNWRITTEN_ATTEMPTS = 50  # a claimed file gets its number within microseconds


class PidFile:
    """A plain decimal number in a 0600 file, locked for as long as its owner lives.

    The lock (flock) ends with the process, however it dies, so neither a file left behind nor
    a recycled pid passes for a running server.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def claim(self) -> None:
        """Takes the lock and writes this process's pid; a live owner is an error."""
        for attempt in range(_CLAIM_ATTEMPTS):
            if attempt:
                time.sleep(_RETRY_S)
            fd = self._open()
            if _lock(fd, fcntl.LOCK_EX) and _is_file_at(fd, self._path):
                self._fd = fd
                _write_pid(fd)
                return
            os.close(fd)
        pid = running_pid(self._path)
        raise LLMProxyError(
            f"a server with pid {pid} already runs here (PID file {self._path}); "
            "stop it with `llm-proxy server stop`, or set LLM_PROXY_HOME to start another"
        )

    def release(self) -> None:
        if self._fd is None:
            return
        with suppress(FileNotFoundError):
            if _is_file_at(self._fd, self._path):
                self._path.unlink()
        os.close(self._fd)
        self._fd = None

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise LLMProxyError(
                f"the PID file {self._path} can't be written ({exc.strerror}); "
                "choose another with --pid-file"
            ) from exc


def running_pid(path: Path) -> int | None:
    """The pid of the live owner of the file; None when nobody holds it."""
    for _ in range(_UNWRITTEN_ATTEMPTS):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise LLMProxyError(f"the PID file {path} can't be read ({exc.strerror})") from exc
        try:
            if _lock(fd, fcntl.LOCK_SH):
                return None
            pid = _read_pid(fd)
        finally:
            os.close(fd)
        if pid is not None:
            return pid
        time.sleep(_RETRY_S)
    raise LLMProxyError(f"the PID file {path} is held by a process that wrote no pid into it")


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file_at(fd: int, path: Path) -> bool:
    """False when the file was removed or replaced between opening and locking it."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _write_pid(fd: int) -> None:
    # Overwrite, then cut: a reader in between still finds the whole number on the first line.
    text = b"%d\n" % os.getpid()
    os.pwrite(fd, text, 0)
    os.ftruncate(fd, len(text))


def _read_pid(fd: int) -> int | None:
    first, newline, _ = os.pread(fd, 32, 0).partition(b"\n")
    return int(first) if newline and first.isdigit() else None
