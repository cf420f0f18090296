"""What a running server writes down about itself, for `status`, `restart` and the next start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

Flags = Mapping[str, str]  # of `server start`, by field of Settings


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    started_at: float  # Unix seconds


class ReloadResult(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    at: float  # Unix seconds
    error: str | None  # None: the new configuration is in force


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    address: str
    manage_address: str | None
    tls_cert: str | None = None  # path; the public address speaks TLS
    proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = ()
    version: str
    started_at: float  # Unix seconds
    runtime_folder: str | None
    workers: list[WorkerState]
    draining: list[WorkerState] = []  # of earlier configurations
    is_stopping: bool = False  # takes no new connections
    writer_pid: int | None = None
    reloads: int = 0  # begun since the start
    last_reload: ReloadResult | None = None  # the last that has ended
    flags: Flags  # for `server restart`
    encryption_key_id: str | None = None  # of the key in its configuration


def write_state(path: Path, state: ServerState) -> None:
    """A reader finds the old state or the new one, never half of it."""
    draft = path.with_name(path.name + ".tmp")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(state))
    draft.replace(path)


def read_state(path: Path) -> ServerState | None:
    """None when there is none, or what is there was not written by this version."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ServerState)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
