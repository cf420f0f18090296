"""A real server that is stopped while requests run that would go on for longer."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.end_to_end.conftest import Launch
from tests.end_to_end.raw_upstream import Peer, RawUpstream, connect
from tests.end_to_end.server_process import COMMAND, ServerProcess
from tests.end_to_end.waiting import eventually

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def server(launch: Launch, raw_upstream: RawUpstream) -> ServerProcess:
    server = launch(upstream=raw_upstream.address)
    server.start()
    return server


@pytest.fixture
def token(server: ServerProcess) -> bytes:
    return server.add_token().encode()


@contextmanager
def asked(
    server: ServerProcess, upstream: RawUpstream, token: bytes
) -> Iterator[tuple[Peer, Peer]]:
    """A client that has sent a request, and the upstream that has received it."""
    with connect(server.address) as client:
        client.send(b"GET /v1/x HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer %b\r\n\r\n" % token)
        with upstream.accept() as peer:
            peer.read_message()
            yield client, peer


def stop(server: ServerProcess, timeout_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "server", "stop", "--timeout", str(timeout_s)],
        env=server.environ,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_outlasts_the_timeout_of_a_stop_is_never_made_to_look_complete(
    server: ServerProcess, raw_upstream: RawUpstream, token: bytes
) -> None:
    with (
        asked(server, raw_upstream, token) as (stream, streaming),
        asked(server, raw_upstream, token) as (body, sending),
        asked(server, raw_upstream, token) as (waiting, thinking),
    ):
        streaming.send(SSE + b"9\r\ndata: 1\n\n\r\n")
        stream.read_until(b"data: 1\n\n\r\n")
        sending.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        body.read_until(b"half")
        with stop(server, 1.0) as stopping:
            rest = stream.read_rest()
            assert b'"code":"draining"' in rest
            assert not rest.endswith(b"0\r\n\r\n")
            assert body.read_rest() == b""  # 96 bytes short
            answer = waiting.read_message()
            assert answer.start == b"HTTP/1.1 503 Service Unavailable"
            assert b'"draining"' in answer.body
            for peer in (streaming, sending, thinking):  # what nobody waits for is called off
                assert peer.read_rest() == b""
            _, said = stopping.communicate(timeout=20)
    assert stopping.returncode == 0
    assert "has stopped; what had not finished within 1 s was cut." in said
    assert server.process.wait(30) == 0
    server.wait_until_all_gone()
    ends = [(r["status_code"], r["error_code"], r["truncated"]) for r in server.records()]
    assert sorted(ends) == [
        (200, "draining", True),
        (200, "draining", True),
        (503, "draining", False),
    ]
    assert "connections cut after the drain: 3" in server.stderr


def test_stop_that_waits_longer_takes_over_from_one_that_was_given_up(
    server: ServerProcess, raw_upstream: RawUpstream, token: bytes
) -> None:
    with asked(server, raw_upstream, token) as (client, peer):
        peer.send(SSE + b"9\r\ndata: 1\n\n\r\n")
        client.read_until(b"data: 1\n\n\r\n")
        with stop(server, 30.0) as given_up, connect(server.address) as idle:
            assert idle.read_rest() == b""  # it is draining
            given_up.send_signal(signal.SIGINT)
            given_up.communicate(timeout=20)
        with stop(server, 7200.0) as stopping:
            eventually(lambda: "draining for 7200 s" in server.stderr)
            peer.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
            assert client.read_rest() == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
            _, said = stopping.communicate(timeout=20)
    assert "has stopped." in said
    assert server.process.wait(30) == 0


def test_second_interrupt_records_what_it_cuts(
    server: ServerProcess, raw_upstream: RawUpstream, token: bytes
) -> None:
    with asked(server, raw_upstream, token) as (client, peer):
        peer.send(SSE + b"9\r\ndata: 1\n\n\r\n")
        client.read_until(b"data: 1\n\n\r\n")
        with connect(server.address) as idle:
            server.signal(signal.SIGINT)
            assert idle.read_rest() == b""
        server.signal(signal.SIGINT)
        assert b'"code":"draining"' in client.read_rest()
        assert server.process.wait(10) == 130
    server.wait_until_all_gone()
    (record,) = server.records()
    assert (record["error_code"], record["truncated"]) == ("draining", True)


def test_answers_during_a_drain_say_that_they_are_the_last(
    server: ServerProcess, raw_upstream: RawUpstream, token: bytes
) -> None:
    with asked(server, raw_upstream, token) as (client, peer):
        with connect(server.address) as idle:
            server.signal(signal.SIGTERM)
            assert idle.read_rest() == b""
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        answer = client.read_message()
        assert (answer.body, answer.value(b"connection")) == (b"ok", b"close")
        assert client.read_rest() == b""
    assert server.process.wait(30) == 0
