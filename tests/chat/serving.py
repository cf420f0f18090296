"""A raw upstream that plays one scripted exchange on a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.end_to_end.raw_upstream import Message, Peer, RawUpstream

SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
SAID = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n'


def plain(status: bytes, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s" % (
        status,
        len(body),
        headers,
        body,
    )


@contextmanager
def answering(upstream: RawUpstream, *answers: bytes) -> Iterator[list[Message]]:
    """One connection for each answer; the requests that came."""
    requests: list[Message] = []

    def answer(peer: Peer, data: bytes) -> None:
        requests.append(peer.read_message())
        peer.send(data)

    with playing(upstream, *(lambda peer, data=data: answer(peer, data) for data in answers)):
        yield requests


@contextmanager
def playing(upstream: RawUpstream, *scripts: Callable[[Peer], None]) -> Iterator[None]:
    def play() -> None:
        for script in scripts:
            with upstream.accept() as peer:
                script(peer)

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        thread.join(15)
        assert not thread.is_alive()
