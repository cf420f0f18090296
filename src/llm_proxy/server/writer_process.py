"""The record writer process, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from llm_proxy.errors import ConfigError, LLMProxyError
from llm_proxy.server.child_process import (
    ChildProcess,
    Started,
    describe_exit,
    start_with_channel,
)

READY_TIMEOUT_S = 10.0


class WriterProcess(ChildProcess):
    """Its first byte says that it listens; then it says how many records it lost in all."""

    def __init__(
        self, started: Started, *, ready_timeout_s: float, on_lost: Callable[[int], None]
    ) -> None:
        super().__init__(started)
        self._ready_timeout_s = ready_timeout_s
        self._on_lost = on_lost
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    async def launch(
        cls,
        command: Sequence[str],
        *,
        ready_timeout_s: float = READY_TIMEOUT_S,
        on_lost: Callable[[int], None] = lambda records: None,
    ) -> WriterProcess:
        """`on_lost` is told of records that could not be written, each time that there are more."""
        started = await start_with_channel(command, "--parent-fd")
        return cls(started, ready_timeout_s=ready_timeout_s, on_lost=on_lost)

    async def wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                if await self._reader.read(1):
                    self._hearing = asyncio.create_task(self._hear(), name=f"writer {self.pid}")
                    return
                code = await self._process.wait()
        except TimeoutError as exc:
            raise LLMProxyError(
                f"the record writer was not ready within {self._ready_timeout_s:g} s; see the log"
            ) from exc
        raise LLMProxyError(
            f"the record writer {describe_exit(code)} before it was ready; see the log"
        )

    async def wait(self) -> int:
        """Until all it said is heard, too."""
        if self._hearing is not None:
            await self._hearing
        return await super().wait()

    async def _hear(self) -> None:
        """Until it closes the channel."""
        lost = 0
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                in_all = int.from_bytes(await self._reader.readexactly(8), "big")
                self._on_lost(in_all - lost)
                lost = in_all

    def finish(self) -> None:
        """It still writes what the workers sent, then exits."""
        self.send_signal(signal.SIGTERM)


def check_event_log(path: Path) -> None:
    """Creates the file if need be; raises ConfigError when records could not be written there."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise ConfigError(
            f"the event log {path} can't be written ({exc.strerror}); "
            "choose another with --file-event-log"
        ) from exc
