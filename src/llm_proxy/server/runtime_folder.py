"""The short private folder for this run's Unix sockets."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from llm_proxy.errors import LLMProxyError

CONTROL_SOCKET = "control.sock"
EVENTS_SOCKET = "events.sock"
STOP_REQUEST = "stop"
_PREFIX = "llm-proxy-"
_SOCKET_PATH_LIMIT = 104  # bytes with the final NUL: sun_path of the BSDs and macOS; Linux has 108


def make_runtime_folder(environ: Mapping[str, str]) -> Path:
    """A new folder of mode 0700 under the first place whose path is short enough."""
    for place in _places(environ):
        # mkdtemp adds eight random characters.
        longest = os.fsencode(Path(place) / (_PREFIX + "x" * 8) / events_socket(9999))
        if len(longest) >= _SOCKET_PATH_LIMIT:
            continue
        with suppress(OSError):
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    raise LLMProxyError(
        "no folder for the private socket can be made in XDG_RUNTIME_DIR, TMPDIR or /tmp; "
        "set TMPDIR to a folder with a short path that you may write to"
    )


def events_socket(number: int) -> str:
    """The name of the record writer's socket, for each that follows another."""
    return EVENTS_SOCKET if number == 1 else f"{number}-{EVENTS_SOCKET}"


def remove_runtime_folder(path: Path) -> None:
    """Removes what `make_runtime_folder` made, and never anything else."""
    try:
        found = path.lstat()
    except OSError:
        return
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not (is_ours and path.name.startswith(_PREFIX)):
        return
    for file in (path / CONTROL_SOCKET, path / STOP_REQUEST, *path.glob("*" + EVENTS_SOCKET)):
        with suppress(OSError):
            file.unlink()
    with suppress(OSError):
        path.rmdir()


def _places(environ: Mapping[str, str]) -> list[str]:
    named = [environ.get("XDG_RUNTIME_DIR"), environ.get("TMPDIR"), "/tmp"]
    return [place for place in named if place and Path(place).is_absolute()]
