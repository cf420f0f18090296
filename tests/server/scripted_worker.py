"""A real worker process that speaks the channel and behaves as its first argument says.

It answers every HTTP connection with its pid. Behaviours: good, crash, silent, failing, deaf
(acknowledges nothing), stubborn (doesn't drain), babbling (breaks the channel's rules).
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
    Configure,
    Drain,
    Failed,
    FromWorker,
    Invalidate,
    Ready,
    decode_to_worker,
    encode,
)


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
            case Invalidate(sequence=sequence) if behaviour != "deaf":
                _say(channel, Acknowledge(sequence))
            case Drain() if behaviour != "stubborn":
                return


def _answer(listener: socket.socket) -> None:
    body = str(os.getpid()).encode()
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    listener.setblocking(True)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(head + body)


def _say(channel: socket.socket, message: FromWorker) -> None:
    channel.sendall(encode(message))


if __name__ == "__main__":
    main()
