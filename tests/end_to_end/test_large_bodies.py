"""100 MiB in either direction through a real server, whose memory stays flat."""

from __future__ import annotations

import hashlib
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.raw_upstream import Peer, RawUpstream, connect
from tests.end_to_end.server_process import ServerProcess

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="peak memory is read from /proc"
)

MIB = 1024 * 1024
SIZE = 100 * MIB
MOST_GROWTH = 32 * MIB
MOST_BUFFERED = 32 * MIB  # the kernel's buffers of four sockets included
PIECE = bytes(range(256)) * 1024
STALLED_S = 0.3


class Memory:
    """Of one process, in bytes."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._before = self._read("VmRSS")
        (self._folder / "clear_refs").write_text("5")  # the peak begins anew

    def _read(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    @property
    def growth(self) -> int:
        return self._read("VmHWM") - self._before


def send_until_stalled(peer: Peer) -> int:
    """Bytes that could be sent to somebody whose reader reads nothing."""
    peer.sock.setblocking(False)
    sent = 0
    while sent < SIZE and select.select([], [peer.sock], [], STALLED_S)[1]:
        # From the place in the repeating pattern where the last piece was cut.
        sent += peer.sock.send(PIECE[sent % len(PIECE) :])
    peer.sock.settimeout(10)
    return sent


def send_rest(peer: Peer, sent: int) -> None:
    while sent < SIZE:
        sent += peer.sock.send(PIECE[sent % len(PIECE) :][: SIZE - sent])


def receive(peer: Peer) -> str:
    """The digest of a body of SIZE bytes."""
    digest = hashlib.sha256()
    left = SIZE
    while left:
        piece = peer.read(min(left, len(PIECE)))
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def digest() -> str:
    return hashlib.sha256(PIECE * (SIZE // len(PIECE))).hexdigest()


def in_thread(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_download(proxy: ServerProcess, raw_upstream: RawUpstream, key: bytes, digest: str) -> None:
    (pid,) = proxy.worker_pids
    with connect(proxy.address) as client:
        client.send(b"GET /v1/x HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer %b\r\n\r\n" % key)
        with raw_upstream.accept() as upstream:
            upstream.read_message()
            memory = Memory(pid)
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            sent = send_until_stalled(upstream)
            assert sent < MOST_BUFFERED  # a client that doesn't read holds the upstream back
            sending = in_thread(lambda: send_rest(upstream, sent))
            client.read_until(b"\r\n\r\n")
            assert receive(client) == digest
            sending.join(10)
            assert memory.growth <= MOST_GROWTH


def test_upload(proxy: ServerProcess, raw_upstream: RawUpstream, key: bytes, digest: str) -> None:
    (pid,) = proxy.worker_pids
    with connect(proxy.address) as client:
        client.send(b"POST /v1/x HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer %b\r\n" % key)
        memory = Memory(pid)
        client.send(b"Content-Length: %d\r\n\r\n" % SIZE)
        with raw_upstream.accept() as upstream:
            sent = send_until_stalled(client)
            assert sent < MOST_BUFFERED  # an upstream that doesn't read holds the client back
            sending = in_thread(lambda: send_rest(client, sent))
            upstream.read_until(b"\r\n\r\n")
            assert receive(upstream) == digest
            sending.join(10)
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert client.read_message().body == b"ok"
            assert memory.growth <= MOST_GROWTH
