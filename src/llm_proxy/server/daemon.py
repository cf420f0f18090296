"""Running a server in the background, with its start still told to whoever asked for it."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from llm_proxy.errors import ConfigError, LLMProxyError

logger = logging.getLogger(__name__)

Report = Callable[[bytes], None]

_START_TIMEOUT_S = 60.0  # every step of a start has a shorter limit of its own
_PID_TIMEOUT_S = 5.0  # it is sent right after the fork
_STARTED, _FAILED = b"+", b"-"


def run_as_daemon(serve: Callable[[Report], int], *, folder: Path, log_file: Path) -> bytes:
    """Calls `serve` in a detached process; returns what that reports once it is ready.

    The parent alone returns. A start that fails raises here, with the daemon's own sentence. All
    paths that `serve` uses must be absolute: it runs in `folder`, its output in `log_file`.
    """
    output = _open_log(log_file)
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(reading)
        os.setsid()
        if os.fork():
            os._exit(0)
        _serve_detached(serve, report_to=writing, folder=folder, output=output)
    try:
        os.close(writing)
        os.close(output)
        return _await_report(reading, middle, log_file)
    finally:
        os.close(reading)


def redirect_output(log_file: Path) -> None:
    """Sends stdout and stderr to the file that has the name now, after a rotation."""
    output = _open_log(log_file)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


def _open_log(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ConfigError(
            f"the log file {path} can't be written ({exc.strerror}); choose another with --log-file"
        ) from exc


def _serve_detached(
    serve: Callable[[Report], int], *, report_to: int, folder: Path, output: int
) -> NoReturn:
    import daemon

    reporter = _Reporter(report_to)
    stream = os.fdopen(output, "w")
    context = daemon.DaemonContext(
        detach_process=False,  # done already, in the order that leaves the pipe open
        working_directory=str(folder),
        umask=0o077,
        files_preserve=[report_to],
        stdout=stream,
        stderr=stream,
        signal_map={},
    )
    with context:
        try:
            code = serve(reporter.started)
        except LLMProxyError as exc:
            logger.error("%s", exc)
            reporter.failed(str(exc))
            code = exc.exit_code
        except Exception as exc:
            logger.exception("the server ended unexpectedly")
            reporter.failed(f"{type(exc).__name__}: {exc}; see the log")
            code = 1
    sys.exit(code)


class _Reporter:
    """Tells the waiting parent how the start went; what comes later has no reader any more."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe
        self._write(b"%d\n" % os.getpid())

    def started(self, payload: bytes) -> None:
        self._write(_STARTED + payload)
        self._close()

    def failed(self, reason: str) -> None:
        self._write(_FAILED + reason.encode())
        self._close()

    def _write(self, message: bytes) -> None:
        with suppress(OSError):  # the parent was interrupted
            while message and self._pipe is not None:
                message = message[os.write(self._pipe, message) :]

    def _close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


def _await_report(pipe: int, middle: int, log_file: Path) -> bytes:
    received = bytearray()
    try:
        os.waitpid(middle, 0)
        _read_to_end(pipe, received)
    except (KeyboardInterrupt, TimeoutError) as exc:
        _end_daemon(pipe, received)
        if isinstance(exc, KeyboardInterrupt):
            raise
        raise LLMProxyError(
            f"the server was not ready within {_START_TIMEOUT_S:g} s and is stopped; see {log_file}"
        ) from exc
    report = bytes(received).partition(b"\n")[2]
    if report.startswith(_STARTED):
        return report[1:]
    reason = report[1:].decode() or f"the server ended before it was ready; see {log_file}"
    raise LLMProxyError(reason)


def _read_to_end(pipe: int, received: bytearray) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise TimeoutError
        if not (piece := os.read(pipe, 65536)):
            return
        received += piece


def _end_daemon(pipe: int, received: bytearray) -> None:
    """Its pid is the first line it sends, and may still be on its way."""
    deadline = time.monotonic() + _PID_TIMEOUT_S
    while b"\n" not in received:
        readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not readable or not (piece := os.read(pipe, 65536)):
            return
        received += piece
    with suppress(ProcessLookupError):
        os.kill(int(received.partition(b"\n")[0]), signal.SIGTERM)
