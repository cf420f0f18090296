from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from llm_proxy.http1.delivery import unacknowledged_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def test_what_was_received_is_acknowledged(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(b"x" * 1000)
    theirs.recv(1000)
    theirs.sendall(b"answer")  # the acknowledgement travels with it
    ours.recv(6)
    assert unacknowledged_bytes(ours) == 0


def test_what_came_after_a_close_is_not(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(b"x")
    theirs.recv(1)
    theirs.close()
    ours.sendall(b"y" * 1000)
    assert unacknowledged_bytes(ours) == 1000


def test_sockets_that_are_not_tcp_tell_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"x")
        assert unacknowledged_bytes(ours) == 0
