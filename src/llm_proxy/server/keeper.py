"""Keeps one child process running: starts it, waits until it is ready, replaces it when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.child_process import describe_exit

logger = logging.getLogger(__name__)

STABLE_AFTER_S = 5.0  # a child that lived this long after it was ready is replaced at once
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0
KILL_WAIT_S = 5.0  # the kernel ends a killed process in milliseconds


class Child(Protocol):
    """A running process."""

    @property
    def pid(self) -> int: ...

    async def wait_until_ready(self) -> None:
        """Raises LLMProxyError when it failed, and after a time limit."""

    async def wait(self) -> int:
        """The exit code, once the process is gone and everything it held is released."""

    def kill(self) -> None: ...


class Backoff:
    """How long to wait before a replacement: longer each time when children die young."""

    def __init__(self) -> None:
        self._delay_s = _FIRST_DELAY_S

    def next_delay(self, lived_s: float) -> float:
        if lived_s >= STABLE_AFTER_S:
            self._delay_s = _FIRST_DELAY_S
            return 0.0
        delay_s = self._delay_s
        self._delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
        return delay_s


C = TypeVar("C", bound=Child)


class Keeper(Generic[C]):
    def __init__(
        self,
        name: str,
        launch: Callable[[], Awaitable[C]],
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`name` is for log lines; `on_change` is called when the child is ready or gone."""
        self._name = name
        self._launch = launch
        self._on_change = on_change
        self._stopping = asyncio.Event()
        self._ask_to_end: Callable[[C], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.child: C | None = None
        self.is_ready = False

    @property
    def ready_child(self) -> C | None:
        return self.child if self.is_ready else None

    async def start(self) -> None:
        """Returns when the first child is ready; if it fails, raises why and keeps nothing."""
        try:
            await self._start_child()
        except BaseException:
            await self._discard()
            raise
        self._task = asyncio.create_task(self._keep(), name=f"keep {self._name}")

    async def stop(self, ask: Callable[[C], None], *, timeout_s: float) -> bool:
        """Asks the child to end, kills it when it doesn't in time; whether it ended by itself."""
        self.begin_stop(ask)
        return await self.wait_stopped(timeout_s=timeout_s)

    def begin_stop(self, ask: Callable[[C], None]) -> None:
        """From now on nothing is launched any more."""
        self._ask_to_end = ask
        self._stopping.set()
        if self.child is not None:
            ask(self.child)

    async def wait_stopped(self, *, timeout_s: float) -> bool:
        if self._task is None:
            return True
        done, _ = await asyncio.wait([self._task], timeout=timeout_s)
        if not done:
            self.kill()
            await asyncio.wait([self._task], timeout=KILL_WAIT_S)
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return bool(done)

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()

    async def _start_child(self) -> None:
        self.child = await self._launch()
        if self._ask_to_end is not None:  # came while the child was being launched
            self._ask_to_end(self.child)
        await self.child.wait_until_ready()
        self.is_ready = True
        self._on_change()

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            # One that was never ready has not lived at all, however long it took to fail.
            lived_s = await self._watch(self.child) if self.child is not None else 0.0
            delay_s = 0.0 if self._stopping.is_set() else backoff.next_delay(lived_s)
            if await self._is_stopped_within(delay_s):
                return
            await self._try_again()

    async def _watch(self, child: C) -> float:
        """Returns when the child is gone, with the seconds it lived."""
        loop = asyncio.get_running_loop()
        ready_at = loop.time()
        code = await child.wait()
        self.child, self.is_ready = None, False
        if not self._stopping.is_set():
            how = describe_exit(code)
            logger.error("%s (pid %d) %s; it is being replaced", self._name, child.pid, how)
        self._on_change()
        return loop.time() - ready_at

    async def _try_again(self) -> None:
        try:
            await self._start_child()
        except (LLMProxyError, OSError) as exc:
            await self._discard()
            logger.error("%s did not start again: %s", self._name, exc)
        else:
            assert self.child is not None
            logger.info("%s was replaced (pid %d)", self._name, self.child.pid)

    async def _is_stopped_within(self, delay_s: float) -> bool:
        if delay_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
        return self._stopping.is_set()

    async def _discard(self) -> None:
        child, self.child, self.is_ready = self.child, None, False
        if child is not None:
            child.kill()
            await child.wait()
