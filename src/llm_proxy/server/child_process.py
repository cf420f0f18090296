"""How the supervisor starts another Python process of llm-proxy."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from llm_proxy.server.channel import MAX_MESSAGE_BYTES

# On a TLS connection, each read of the upstream's answer would map and unmap memory without these.
_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_TOP_PAD_": "16777216",
}
_SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL", "DATABASE_URL")


def module_command(module: str) -> list[str]:
    # -P: without it, a file named like a library's module in the current folder would be run.
    return [sys.executable, "-P", "-m", module]


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Without anything that looks like a secret: children get theirs over a private channel."""
    kept = {
        name: value
        for name, value in environ.items()
        if not any(word in name.upper() for word in _SECRET_WORDS)
        and not _may_hold_credentials(name, value)
    }
    return kept | _MALLOC


def _may_hold_credentials(name: str, value: str) -> bool:
    """As a URL does, and the address of a proxy that was given without `http://`."""
    return "@" in value and ("://" in value or name.upper().endswith("_PROXY"))


async def start_process(
    command: Sequence[str], *, environ: Mapping[str, str], pass_fds: Sequence[int]
) -> asyncio.subprocess.Process:
    """The child gets only `pass_fds` and stderr (on asyncio's own loop: uvloop leaks the rest).

    It is in a session of its own: Ctrl-C in the terminal reaches the supervisor alone, which
    then stops its children in the right order.
    """
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=pass_fds,
        env=dict(environ),
        start_new_session=True,
    )


async def open_channel() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]:
    """Our end of a new socket pair, and the one for the child.

    Open it before the process: nothing may be awaited between the start of a process and the
    object that owns it, or a start that is cancelled there leaves an orphan.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_MESSAGE_BYTES)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return reader, writer, theirs


@dataclass(frozen=True, slots=True)
class Started:
    """A process, and our end of the socket pair that it has the other end of."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def start_with_channel(
    command: Sequence[str], option: str, *, descriptors: Sequence[int] = ()
) -> Started:
    """`option` tells the child which of its descriptors is the channel; it gets the others too."""
    reader, writer, theirs = await open_channel()
    try:
        process = await start_process(
            [*command, option, str(theirs.fileno())],
            environ=child_environment(os.environ),
            pass_fds=[theirs.fileno(), *descriptors],
        )
    except BaseException:
        writer.close()
        raise
    finally:
        theirs.close()
    return Started(process, reader, writer)


class ChildProcess:
    """The end of our side of the channel tells a child that we are gone."""

    def __init__(self, started: Started) -> None:
        self._process = started.process
        self._reader = started.reader
        self._writer = started.writer

    @property
    def pid(self) -> int:
        return self._process.pid

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


def describe_exit(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
