"""Starting a server: in this process, or as a daemon that reports how its start went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from llm_proxy.logs import configure_logging
from llm_proxy.server.daemon import run_as_daemon
from llm_proxy.server.state import Flags
from llm_proxy.server.supervisor import Started, Supervisor
from llm_proxy.settings import Settings


def run_in_foreground(
    settings: Settings, *, flags: Flags, announce: Callable[[Started], None]
) -> int:
    """Serves until told to stop; the exit code."""
    return _supervise(settings, flags=flags, announce=announce, is_daemon=False)


def start_daemon(settings: Settings, *, flags: Flags) -> Started:
    """Returns when the daemon serves requests; raises its reason when it can't."""
    settings.home.ensure()
    log_file = settings.log_file or settings.home.log_file
    settings = msgspec.structs.replace(settings, log_file=log_file)

    def serve(report: Callable[[bytes], None]) -> int:
        return _supervise(
            settings,
            flags=flags,
            announce=lambda started: report(msgspec.json.encode(started)),
            is_daemon=True,
        )

    report = run_as_daemon(serve, folder=settings.home.path, log_file=log_file)
    return msgspec.json.decode(report, type=Started)


def _supervise(
    settings: Settings, *, flags: Flags, announce: Callable[[Started], None], is_daemon: bool
) -> int:
    settings.home.ensure()
    configure_logging(settings.log_level, settings.log_format, settings.log_file)

    async def run() -> int:
        supervisor = Supervisor(settings, flags=flags, announce=announce, is_daemon=is_daemon)
        return await supervisor.run()

    return asyncio.run(run())
