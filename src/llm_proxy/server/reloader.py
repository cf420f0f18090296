"""Reloads: on request, one at a time, and never the end of what is running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.configuration import Configuration, check_reloadable, read_configuration
from llm_proxy.settings import Settings

logger = logging.getLogger(__name__)


class Reloadable(Protocol):
    @property
    def settings(self) -> Settings:
        """Those in force."""

    async def reload(self, configuration: Configuration) -> None:
        """Returns when it is in force; when it can't be, raises why, and nothing has changed."""

    def begin_reload(self) -> None: ...
    async def end_reload(self, error: str | None) -> None: ...


class Reloader:
    def __init__(
        self,
        processes: Reloadable,
        reread: Callable[[], Settings],
        *,
        on_reload: Callable[[Settings], None],
    ) -> None:
        """`reread` gives the settings as they would be at a start now."""
        self._processes = processes
        self._reread = reread
        self._on_reload = on_reload

    async def run(self, asked: asyncio.Event) -> None:
        """Goes on until cancelled. However often one asks during a reload, one more follows it."""
        while True:
            await asked.wait()
            asked.clear()
            self._processes.begin_reload()
            await self._processes.end_reload(await _failure_of(self._reload()))

    async def _reload(self) -> None:
        settings = await asyncio.to_thread(self._reread)
        check_reloadable(self._processes.settings, settings)
        configuration = await asyncio.to_thread(read_configuration, settings)
        await self._processes.reload(configuration)
        self._on_reload(settings)
        logger.info("the configuration was reloaded (workers: %d)", settings.workers)


async def _failure_of(reload: Awaitable[None]) -> str | None:
    try:
        await reload
    except (LLMProxyError, OSError) as exc:
        logger.error("the configuration was not reloaded: %s", exc)
        return str(exc)
    except Exception as exc:  # whatever it is, the server goes on
        logger.exception("the configuration was not reloaded")
        return f"{type(exc).__name__}: {exc}; see the log"
    return None
