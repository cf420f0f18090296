"""A real server whose workers are killed, and one that is stopped while it is at work."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Launch
from tests.end_to_end.raw_upstream import Peer, RawUpstream, connect
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.waiting import eventually

CONNECTIONS = 12
PROBE = b"GET /v1/models HTTP/1.1\r\nHost: p\r\n\r\n"  # without a token: a worker's own answer


def is_served(peer: Peer) -> bool:
    """Whether the worker that has this connection still answers."""
    try:
        peer.send(PROBE)
        return peer.read_message().start == b"HTTP/1.1 401 Unauthorized"
    except (EOFError, ConnectionError):
        return False


def private_folders(server: ServerProcess) -> list[Path]:
    return list(server.runtime.iterdir())


def test_killed_worker_is_replaced_while_the_other_serves(launch: Launch) -> None:
    server = launch(arguments=["--workers", "2"])
    server.start()
    killed, spared = server.worker_pids
    peers = [connect(server.address) for _ in range(CONNECTIONS)]
    assert all(is_served(peer) for peer in peers)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: killed not in server.worker_pids)
    survivors = [peer for peer in peers if is_served(peer)]
    # Both had connections, and those of the other worker live on.
    assert 0 < len(survivors) < CONNECTIONS
    pids = eventually(lambda: pids if len(pids := server.worker_pids) == 2 else None)
    assert spared in pids
    assert killed not in pids
    later = [connect(server.address) for _ in range(CONNECTIONS)]
    assert all(is_served(peer) for peer in later + survivors)
    with server.client() as client:
        assert client.get("/ready").status_code == 200
    for peer in peers + later:
        peer.close()
    assert server.stop() == 0
    assert "was killed by signal 9; it is being replaced" in server.stderr


def test_stream_that_runs_is_finished_before_the_server_stops(
    launch: Launch, raw_upstream: RawUpstream
) -> None:
    server = launch(upstream=raw_upstream.address)
    server.start()
    token = server.add_token()
    with connect(server.address) as client, connect(server.address) as idle:
        client.send(b"GET /v1/x HTTP/1.1\r\nHost: p\r\n")
        client.send(b"Authorization: Bearer %b\r\n\r\n" % token.encode())
        with raw_upstream.accept() as upstream:
            upstream.read_message()
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            upstream.send(b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
            client.read_until(b"data: 1\n\n\r\n")
            server.signal(signal.SIGTERM)
            assert idle.read_rest() == b""  # it is draining
            with pytest.raises(ConnectionRefusedError):
                connect(server.address)
            for number in range(2, 5):
                upstream.send(b"9\r\ndata: %d\n\n\r\n" % number)
                client.read_until(b"data: %d\n\n\r\n" % number)
            upstream.send(b"0\r\n\r\n")
            assert client.read_rest() == b"0\r\n\r\n"
    assert server.process.wait(10) == 0
    server.wait_until_all_gone()
    (record,) = server.records()
    assert record["status_code"] == 200
    assert not record["truncated"]
    assert not private_folders(server)


def test_second_interrupt_ends_the_server_at_once(
    launch: Launch, raw_upstream: RawUpstream
) -> None:
    server = launch(upstream=raw_upstream.address)
    server.start()
    token = server.add_token()
    with connect(server.address) as client, connect(server.address) as idle:
        client.send(b"GET /v1/x HTTP/1.1\r\nHost: p\r\n")
        client.send(b"Authorization: Bearer %b\r\n\r\n" % token.encode())
        with raw_upstream.accept() as upstream:
            upstream.read_message()
            server.signal(signal.SIGINT)
            assert idle.read_rest() == b""
            server.signal(signal.SIGINT)
            assert server.process.wait(30) == 130
    server.wait_until_all_gone()
    assert not private_folders(server)


def test_idle_clients_do_not_hold_up_a_stop(launch: Launch) -> None:
    server = launch()
    server.start()
    with connect(server.address) as used, connect(server.address):
        assert is_served(used)
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 20  # of the 30 that it would give requests
