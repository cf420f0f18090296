"""The record writer process, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llm_proxy.errors import ConfigError, LLMProxyError
from llm_proxy.server.child_process import (
    child_environment,
    describe_exit,
    open_channel,
    start_process,
)

READY_TIMEOUT_S = 10.0


class WriterProcess:
    """Our end of its socket pair says that we live; its first byte, that it listens."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        ready_timeout_s: float,
    ) -> None:
        self._process = process
        self._ready_timeout_s = ready_timeout_s
        self._reader = reader
        self._writer = writer

    @classmethod
    async def launch(
        cls, command: Sequence[str], *, ready_timeout_s: float = READY_TIMEOUT_S
    ) -> WriterProcess:
        reader, writer, theirs = await open_channel()
        try:
            process = await start_process(
                [*command, "--parent-fd", str(theirs.fileno())],
                environ=child_environment(os.environ),
                pass_fds=[theirs.fileno()],
            )
        except BaseException:
            writer.close()
            raise
        finally:
            theirs.close()
        return cls(process, reader, writer, ready_timeout_s=ready_timeout_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                if await self._reader.read(1):
                    return
                code = await self._process.wait()
        except TimeoutError as exc:
            raise LLMProxyError(
                f"the record writer was not ready within {self._ready_timeout_s:g} s; see the log"
            ) from exc
        raise LLMProxyError(
            f"the record writer {describe_exit(code)} before it was ready; see the log"
        )

    def finish(self) -> None:
        """It still writes what the workers sent, then exits."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> int:
        code = await self._process.wait()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        return code


def check_event_log(path: Path) -> None:
    """Creates the file if need be; raises ConfigError when records could not be written there."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise ConfigError(
            f"the event log {path} can't be written ({exc.strerror}); "
            "choose another with --file-event-log"
        ) from exc
