from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.server.socket_file import bind_socket_file, remove_socket_file


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
    yield Path("s")


def reached(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        return True


def test_group_may_connect_and_others_may_not(path: Path) -> None:
    with bind_socket_file(path, backlog=10):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert reached(path)


def test_socket_of_a_dead_server_is_replaced(path: Path) -> None:
    bind_socket_file(path, backlog=10).close()
    assert not reached(path)
    with bind_socket_file(path, backlog=10):
        assert reached(path)


def test_socket_of_a_live_server_is_in_use(path: Path) -> None:
    with bind_socket_file(path, backlog=10):
        with pytest.raises(OSError) as caught:
            bind_socket_file(path, backlog=10)
        assert caught.value.errno == errno.EADDRINUSE
        assert reached(path)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_anything_else_is_never_removed(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(OSError) as caught:
        bind_socket_file(path, backlog=10)
    assert caught.value.errno == errno.EADDRINUSE
    assert os.path.lexists(path)


def test_two_that_start_at_once_do_not_undo_each_other(path: Path) -> None:
    import fcntl

    folder = os.open(".", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(BlockingIOError):
            bind_socket_file(path, backlog=10)
    finally:
        os.close(folder)
    bind_socket_file(path, backlog=10).close()


def test_file_is_removed_when_nobody_listens_any_more(path: Path) -> None:
    with bind_socket_file(path, backlog=10):
        remove_socket_file(path)  # another server may have taken it over
        assert reached(path)
    remove_socket_file(path)
    assert not path.exists()
    path.write_text("precious")
    remove_socket_file(path)
    assert path.read_text() == "precious"
