"""Raw sockets: an upstream whose every byte the test sends, and a client likewise."""

from __future__ import annotations

import socket
from dataclasses import dataclass

_LIMIT_S = 10.0


class Peer:
    """One end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(_LIMIT_S)
        self.sock = sock
        self._received = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._received += self._receive()
        found, end, self._received = self._received.partition(end)
        return found + end

    def read(self, size: int) -> bytes:
        while len(self._received) < size:
            self._received += self._receive()
        found, self._received = self._received[:size], self._received[size:]
        return found

    def read_rest(self) -> bytes:
        """Until the other end closes."""
        while data := self.sock.recv(65536):
            self._received += data
        found, self._received = self._received, b""
        return found

    def read_message(self) -> Message:
        """A head, and a body whose length it tells."""
        head = self.read_until(b"\r\n\r\n")
        start, *lines = head[:-4].split(b"\r\n")
        message = Message(start=start, lines=lines, body=b"")
        length = message.value(b"content-length")
        body = self.read(int(length)) if length else b""
        return Message(start=start, lines=lines, body=body)

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {self._received!r}")
        return data

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    start: bytes
    lines: list[bytes]  # of the headers, as they were sent
    body: bytes

    def value(self, name: bytes) -> bytes | None:
        """Of the first header of that name, which is in lower case."""
        start = name + b":"
        found = (line for line in self.lines if line.lower().startswith(start))
        line = next(found, None)
        return None if line is None else line[len(start) :].strip()

    def names(self) -> list[bytes]:
        return [line.partition(b":")[0] for line in self.lines]


class RawUpstream:
    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LIMIT_S)

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def accept(self) -> Peer:
        """The next connection that the proxy makes; close it, lest the proxy keeps it."""
        return Peer(self._listener.accept()[0])

    def close(self) -> None:
        self._listener.close()


def connect(address: str) -> Peer:
    host, _, port = address.rpartition(":")
    return Peer(socket.create_connection((host, int(port)), timeout=_LIMIT_S))
