"""A real worker process that speaks the channel and behaves as its first argument says.

Once it may serve, it answers every HTTP connection with its pid and the changes it was told of.
Behaviours: good, crash, silent, failing, deaf (answers nothing), stubborn (doesn't drain),
babbling (breaks the channel's rules), busy (ends when a drain leaves it no time). One that is told
to be `picky` behaves as the last digit of its configuration's `max_request_size` says.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import BinaryIO

from llm_proxy.measurements import Series, Snapshot
from llm_proxy.server.channel import (
    Acknowledge,
    Change,
    Collect,
    Configure,
    Drain,
    Failed,
    FromWorker,
    Invalidate,
    LimitsState,
    Measured,
    Ready,
    Serve,
    ShareLimits,
    StoreState,
    decode_to_worker,
    encode,
)

BEHAVIOURS = ("good", "crash", "silent", "failing", "stubborn", "busy", "deaf")
seen: list[Change] = []


def main() -> None:
    behaviour = sys.argv[1]
    channel = socket.socket(fileno=int(sys.argv[sys.argv.index("--channel") + 1]))
    given = [sys.argv[i + 1] for i, word in enumerate(sys.argv) if word == "--listen"]
    listeners = [socket.socket(fileno=int(number)) for number in given]
    lines = channel.makefile("rb")
    configure = decode_to_worker(lines.readline())
    assert isinstance(configure, Configure)
    if behaviour == "picky":
        behaviour = BEHAVIOURS[configure.config.max_request_size % 10]
    _begin(behaviour, channel)
    _obey(behaviour, channel, lines, listeners)


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


def _obey(
    behaviour: str, channel: socket.socket, lines: BinaryIO, listeners: list[socket.socket]
) -> None:
    for line in lines:
        match decode_to_worker(line):
            case Serve():
                for listener in listeners:
                    threading.Thread(target=_answer, args=(listener,), daemon=True).start()
            case Invalidate(sequence=sequence, changes=changes) if behaviour != "deaf":
                seen.extend(changes)
                _say(channel, Acknowledge(sequence))
            case StoreState(is_lost=is_lost):
                seen.append(Change("store", "lost" if is_lost else "back"))
            case ShareLimits() if behaviour != "deaf":
                _say(channel, LimitsState(slots=(("total", 2),)))
            case Collect(sequence=sequence) if behaviour != "deaf":
                told = Series("requests", ("openai", "200"), sequence)
                _say(channel, Measured(sequence, Snapshot(counters=(told,))))
            case Drain(timeout_s=timeout_s):
                if not (behaviour == "stubborn" or (behaviour == "busy" and timeout_s)):
                    return


def _answer(listener: socket.socket) -> None:
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    listener.setblocking(True)
    listener.listen()
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
