"""Starting a server: in this process, or as a daemon that reports how its start went."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path

import msgspec

from llm_proxy.logs import configure_logging
from llm_proxy.server.daemon import run_as_daemon
from llm_proxy.server.state import Flags
from llm_proxy.server.supervisor import Started, Supervisor
from llm_proxy.settings import Settings, load_settings


def run_in_foreground(
    settings: Settings, *, flags: Flags, announce: Callable[[Started], None]
) -> int:
    """Serves until told to stop; the exit code."""
    folder = Path.cwd()
    return _supervise(
        settings,
        flags=flags,
        announce=announce,
        reread=lambda: _reread(flags, folder),
        is_daemon=False,
    )


def start_daemon(settings: Settings, *, flags: Flags) -> Started:
    """Returns when the daemon serves requests; raises its reason when it can't."""
    settings.home.ensure()
    settings = _with_log_file(settings)
    log_file = settings.log_file
    assert log_file is not None
    folder = Path.cwd()

    def serve(report: Callable[[bytes], None]) -> int:
        return _supervise(
            settings,
            flags=flags,
            announce=lambda started: report(msgspec.json.encode(started)),
            reread=lambda: _with_log_file(_reread(flags, folder)),
            is_daemon=True,
        )

    report = run_as_daemon(serve, folder=settings.home.path, log_file=log_file)
    return msgspec.json.decode(report, type=Started)


def _with_log_file(settings: Settings) -> Settings:
    """A daemon always has one."""
    log_file = settings.log_file or settings.home.log_file
    return msgspec.structs.replace(settings, log_file=log_file)


def _reread(flags: Flags, folder: Path) -> Settings:
    """As they would be if the server were started again, in the same folder."""
    given = dict(flags)
    env_file = given.pop("env_file", None)
    return load_settings(given, env_file=Path(env_file) if env_file else None, folder=folder)


def _supervise(
    settings: Settings,
    *,
    flags: Flags,
    announce: Callable[[Started], None],
    reread: Callable[[], Settings],
    is_daemon: bool,
) -> int:
    settings.home.ensure()
    configure_logging(settings.log_level, settings.log_format, settings.log_file)

    def announce_and_collect(started: Started) -> None:
        announce(started)
        _collect_often()

    async def run() -> int:
        supervisor = Supervisor(
            settings,
            flags=flags,
            announce=announce_and_collect,
            reread=reread,
            is_daemon=is_daemon,
        )
        return await supervisor.run()

    return asyncio.run(run())


def _collect_often() -> None:
    """The commands collect rarely, for a quick start, but Hypercorn leaves cycles behind each
    connection: 10 MiB of them would wait. What the start made stays, and needs no looking at."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 10)
