"""The public address as a file: a Unix socket that replaces a dead server's, never a live one's."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

MODE: Final = 0o660  # the group too: a web server in front runs as another user
_PROBE_S: Final = 1.0


def bind_socket_file(path: Path, *, backlog: int) -> socket.socket:
    """Raises OSError, with EADDRINUSE when a server or any other file is there."""
    with _locked(path.parent):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if _is_dead(path):
                path.unlink()
            sock.bind(os.fspath(path))
            path.chmod(MODE)  # nobody gets in before `listen`
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
    sock.setblocking(False)
    return sock


def remove_socket_file(path: Path) -> None:
    """Once nobody listens on it: a server that has taken the path over since keeps its own."""
    with suppress(OSError), _locked(path.parent):
        if _is_dead(path):
            path.unlink()


def _is_dead(path: Path) -> bool:
    """Whether there is a socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(os.fspath(path))
        except OSError as exc:
            return exc.errno == errno.ECONNREFUSED
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two servers that start at once must not both find the same dead socket."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)
