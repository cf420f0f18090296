"""A real worker process that speaks the channel and behaves as its first argument says.

It answers every HTTP connection with its pid and the changes it was told of. Behaviours: good,
crash, silent, failing, deaf (acknowledges nothing), stubborn (doesn't drain), babbling (breaks the
channel's rules).
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import BinaryIO

from llm_proxy.server.channel import (
    Acknowledge,
    Change,
    Configure,
    Drain,
    Failed,
    FromWorker,
    Invalidate,
    Ready,
    decode_to_worker,
    encode,
)

seen: list[Change] = []


def main() -> None:
    behaviour = sys.argv[1]
    channel = socket.socket(fileno=int(sys.argv[sys.argv.index("--channel") + 1]))
    listener = socket.socket(fileno=int(sys.argv[sys.argv.index("--listen") + 1]))
    lines = channel.makefile("rb")
    configure = decode_to_worker(lines.readline())
    assert isinstance(configure, Configure)
    _begin(behaviour, channel)
    threading.Thread(target=_answer, args=(listener,), daemon=True).start()
    _obey(behaviour, channel, lines)


def _begin(behaviour: str, channel: socket.socket) -> None:
    if behaviour == "crash":
        os._exit(3)
    if behaviour == "silent":
        time.sleep(60)
    if behaviour == "failing":
        _say(channel, Failed("the moon is in the wrong house"))
        time.sleep(60)
    if behaviour == "babbling":
        channel.sendall(b"hello, supervisor\n")
        time.sleep(60)
    _say(channel, Ready(os.getpid()))


def _obey(behaviour: str, channel: socket.socket, lines: BinaryIO) -> None:
    for line in lines:
        match decode_to_worker(line):
            case Invalidate(sequence=sequence, changes=changes) if behaviour != "deaf":
                seen.extend(changes)
                _say(channel, Acknowledge(sequence))
            case Drain() if behaviour != "stubborn":
                return


def _answer(listener: socket.socket) -> None:
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    listener.setblocking(True)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            words = [str(os.getpid()), *(f"{change.kind}:{change.id}" for change in seen)]
            body = " ".join(words).encode()
            connection.sendall(head % len(body) + body)


def _say(channel: socket.socket, message: FromWorker) -> None:
    channel.sendall(encode(message))


if __name__ == "__main__":
    main()
