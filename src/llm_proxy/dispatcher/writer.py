"""The record writer: the one process of a server that turns what workers saw into the event log.

`python -m llm_proxy.dispatcher.writer --socket PATH --file FILE …`, started by the supervisor. It
ends, once the workers have hung up, after SIGTERM or when the other end of --parent-fd is gone.
There it says R when it listens and then, each time that there are more, how many records it lost
in all: 8 bytes, the highest first.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from llm_proxy.dispatcher.frames import FrameError, FrameReader
from llm_proxy.dispatcher.pipeline import Pipeline
from llm_proxy.dispatcher.sinks.file import FileSink
from llm_proxy.errors import ConfigError, LLMProxyError
from llm_proxy.logs import configure_logging, reopen_logs

logger = logging.getLogger("llm_proxy.dispatcher.writer")  # run as __main__

_READY: Final = b"R"
_DRAIN_S: Final = 35.0  # a worker that drains may take 30
_RECEIVE_BYTES: Final = 256 << 10
_BACKLOG: Final = 128


class Writer:
    """A loop over sockets and signals; asyncio would double the process's memory."""

    def __init__(
        self,
        listener: socket.socket,
        sink: FileSink,
        *,
        parent: socket.socket | None = None,
        drain_timeout_s: float = _DRAIN_S,
    ) -> None:
        """`parent` tells us by its end that the supervisor is gone."""
        self._sink = sink
        self._pipeline = Pipeline(sink)
        self._listener = listener
        self._parent = parent
        self._drain_timeout_s = drain_timeout_s
        self._deadline: float | None = None  # set: ends at the latest then
        self._losses_told = 0
        self._connections: dict[int, tuple[socket.socket, FrameReader]] = {}
        self._accepted = 0
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Returns when all is written."""
        self._catch_signals()
        self._watch(self._listener, self._accept)
        if self._parent is not None:
            self._watch(self._parent, self._hear_parent)
            with suppress(OSError):  # gone already: the loop finds its end
                self._parent.sendall(_READY)
        while not self._is_done():
            for key, _ in self._selector.select(self._wait_s()):
                key.data()
            self._sink.flush()
            self._tell_losses()
        self._finish()

    def _watch(self, sock: socket.socket, callback: object) -> None:
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, callback)

    def _is_done(self) -> bool:
        if self._deadline is None:
            return False
        return not self._connections or time.monotonic() >= self._deadline

    def _wait_s(self) -> float | None:
        waits = [self._sink.wait_s()]
        if self._deadline is not None:
            waits.append(max(0.0, self._deadline - time.monotonic()))
        return min((wait for wait in waits if wait is not None), default=None)

    # ---- signals and the parent ----

    def _catch_signals(self) -> None:
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._watch(self._woken, self._hear_signals)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, _leave_to_wakeup_fd)
        # From a terminal they reach the workers too, and those still have records to send.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _hear_signals(self) -> None:
        numbers = self._woken.recv(4096)
        if signal.SIGUSR1 in numbers:
            reopen_logs()
            self._sink.reopen()
        if signal.SIGTERM in numbers:
            self._drain()

    def _hear_parent(self) -> None:
        assert self._parent is not None
        try:
            is_gone = not self._parent.recv(4096)
        except OSError:
            is_gone = True
        if is_gone:
            self._selector.unregister(self._parent)
            self._parent.close()
            self._drain()

    def _tell_losses(self) -> None:
        losses = self._sink.lost + self._pipeline.unreadable
        if losses == self._losses_told or self._parent is None:
            return
        with suppress(OSError):  # it doesn't read, or is gone: told with the next ones
            self._parent.send(losses.to_bytes(8, "big"))
            self._losses_told = losses

    def _drain(self) -> None:
        """Takes no new connection and leaves when those there are have ended."""
        if self._deadline is not None:
            return
        self._deadline = time.monotonic() + self._drain_timeout_s
        while self._accept():
            pass
        self._selector.unregister(self._listener)
        _unlink_socket(self._listener)

    # ---- workers ----

    def _accept(self) -> bool:
        """Whether somebody was waiting."""
        if self._listener.fileno() < 0:
            return False  # closed since the selector saw it
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as exc:
            logger.error("a worker's connection can't be accepted: %s", exc)
            time.sleep(0.1)  # out of descriptors, say: don't spin
            return False
        self._accepted += 1
        number = self._accepted
        self._connections[number] = sock, FrameReader()
        self._watch(sock, lambda: self._read(number))
        return True

    def _read(self, number: int) -> None:
        sock, frames = self._connections[number]
        try:
            data = sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            for frame in frames.feed(data):
                self._pipeline.take(number, frame)
        except FrameError as exc:
            logger.error("a worker's connection is closed: %s", exc)
            data = b""
        if not data:
            self._disconnect(number)

    def _disconnect(self, number: int) -> None:
        sock, _ = self._connections.pop(number)
        self._selector.unregister(sock)
        sock.close()
        self._pipeline.disconnect(number)

    def _finish(self) -> None:
        if self._connections:
            logger.warning("%d workers had not finished in time", len(self._connections))
        for number in list(self._connections):
            self._disconnect(number)
        self._sink.close()
        self._tell_losses()
        signal.set_wakeup_fd(-1)
        self._woken.close()
        self._waker.close()
        self._selector.close()
        if self._pipeline.bodies_dropped:
            logger.warning("%d responses gave no metadata", self._pipeline.bodies_dropped)
        logger.debug("%d records written", self._pipeline.records)


def _leave_to_wakeup_fd(number: int, frame: object) -> None:
    """The loop hears of it from the file descriptor."""


def listen(path: Path) -> socket.socket:
    """A socket that only its owner can connect to; replaces one that was left behind."""
    sock = socket.socket(socket.AF_UNIX)
    previous = os.umask(0o177)
    try:
        with suppress(FileNotFoundError):
            path.unlink()
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise ConfigError(
            f"the record writer can't listen on {path} ({_reason(exc)}); "
            "the folder must be writable and the path shorter than 104 bytes"
        ) from exc
    finally:
        os.umask(previous)
    return sock


def _unlink_socket(listener: socket.socket) -> None:
    path = Path(listener.getsockname())
    listener.close()
    with suppress(OSError):
        path.unlink()


def open_sink(path: Path, *, max_size_mb: int, max_backups: int) -> FileSink:
    sink = FileSink(path, max_bytes=max_size_mb << 20, max_backups=max_backups)
    try:
        sink.open()
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            return sink  # the disk may have room again later
        raise ConfigError(
            f"the event log {path} can't be written ({_reason(exc)}); "
            "choose another with --file-event-log"
        ) from exc
    return sink


def _reason(exc: OSError) -> str:
    return exc.strerror or str(exc)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llm_proxy.dispatcher.writer", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--max-size-mb", type=int, default=100)
    parser.add_argument("--max-backups", type=int, default=5)
    parser.add_argument("--parent-fd", type=int)
    parser.add_argument("--drain-timeout", type=float, default=_DRAIN_S, metavar="SECONDS")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", default="auto")
    parser.add_argument("--log-file", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        configure_logging(options.log_level, options.log_format, options.log_file)
        sink = open_sink(
            options.file, max_size_mb=options.max_size_mb, max_backups=options.max_backups
        )
        listener = listen(options.socket)
    except LLMProxyError as exc:
        logger.error("%s", exc)
        return exc.exit_code
    parent = None if options.parent_fd is None else socket.socket(fileno=options.parent_fd)
    Writer(listener, sink, parent=parent, drain_timeout_s=options.drain_timeout).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
