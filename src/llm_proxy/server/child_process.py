"""How the supervisor starts another Python process of llm-proxy."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

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


def describe_exit(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
