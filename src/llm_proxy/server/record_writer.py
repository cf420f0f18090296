"""The record writer of a server: kept running while workers send to it, then let finish."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from llm_proxy.server.child_process import module_command
from llm_proxy.server.keeper import Keeper
from llm_proxy.server.writer_process import WriterProcess
from llm_proxy.settings import Settings

logger = logging.getLogger(__name__)

FINISH_S: Final = 10.0
_COMMAND = module_command("llm_proxy.dispatcher.writer")
_KILL_S = 0.5


class RecordWriter:
    def __init__(
        self,
        arguments: Sequence[str],
        *,
        socket: Path,
        on_change: Callable[[], None],
        on_lost: Callable[[int], None],
    ) -> None:
        """`arguments` come from `writer_arguments`; it will listen on `socket`. `on_lost` is told
        of records that it could not write."""
        self.arguments = arguments
        self.socket = socket
        command = [*_COMMAND, "--socket", str(socket), *arguments]
        self._keeper = Keeper(
            "record writer",
            lambda: WriterProcess.launch(command, on_lost=on_lost),
            on_change=on_change,
        )

    @property
    def pid(self) -> int | None:
        """While it is ready."""
        child = self._keeper.ready_child
        return None if child is None else child.pid

    async def start(self) -> None:
        await self._keeper.start()

    async def finish(self, *, timeout_s: float = FINISH_S) -> None:
        """Returns when it has written what the workers, which are gone, had sent."""
        if not await self._keeper.stop(WriterProcess.finish, timeout_s=timeout_s):
            logger.warning("the record writer did not finish in time: killed, records are lost")

    async def kill(self) -> None:
        await self._keeper.stop(WriterProcess.kill, timeout_s=_KILL_S)

    def reopen_logs(self) -> None:
        if (child := self._keeper.ready_child) is not None:
            child.send_signal(signal.SIGUSR1)


def writer_arguments(settings: Settings) -> list[str] | None:
    """What a writer must do; None when nothing is to be written."""
    if settings.file_event_log is None:
        return None
    options = {
        "--file": settings.file_event_log,
        "--max-size-mb": settings.log_max_size_mb,
        "--max-backups": settings.log_max_backups,
        "--log-level": settings.log_level,
        "--log-format": settings.log_format,
    }
    if settings.log_file is not None:
        options["--log-file"] = settings.log_file
    return [str(word) for option in options.items() for word in option]
