"""Signals of a session: Ctrl-C stops what is to be stopped; else, and by others, all ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Interrupts:
    def __init__(self) -> None:
        self.received: int | None = None  # the signal that ended the session
        self._stop: Callable[[], None] | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Signals that nobody takes cancel the current task, so that terminals are restored."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        # What nohup, or a shell for its background, had ignored stays so.
        taken = [number for number, handler in before.items() if handler != signal.SIG_IGN]
        for number in taken:
            loop.add_signal_handler(number, self.take, number, task)
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    def take(self, number: int, task: asyncio.Task[object]) -> None:
        if number == signal.SIGINT and self._stop is not None:
            self._stop()
        else:
            self.received = number
            task.cancel()

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Ctrl-C calls `stop` meanwhile, and then what it called before."""
        before, self._stop = self._stop, stop
        try:
            yield
        finally:
            self._stop = before
