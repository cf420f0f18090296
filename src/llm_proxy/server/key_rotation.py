"""A rotation of ENCRYPTION_KEY from beginning to end: the database, the home, the server.

At every moment the key that the home holds opens the database, whatever is killed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from llm_proxy.audit import AuditEntry
from llm_proxy.env_file import with_value
from llm_proxy.errors import Conflict, LLMProxyError
from llm_proxy.home import Home, write_private
from llm_proxy.secrets import Cipher, Secret, key_id
from llm_proxy.server.host_identity import host_identity
from llm_proxy.server.pidfile import running_pid
from llm_proxy.server.reload_request import request_reload
from llm_proxy.server.state import ServerState, read_state
from llm_proxy.settings import Settings
from llm_proxy.store.audit import append_entries
from llm_proxy.store.database import Store
from llm_proxy.store.encryption import (
    Rotation,
    begin_rotation,
    begun_rotation,
    finish_rotation,
    reencrypt,
)

# Within which a running server has read in the table of changes that there is a new key.
_LEARNED_WITHIN_S: Final = 1.5


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where in a home its encryption key is kept."""

    home: Home
    is_in_env_file: bool

    @classmethod
    def of(cls, home: Home, source: str) -> KeyPlace | None:
        """`source` is where the settings found it; None when that isn't the home."""
        if source == str(home.secret_file("encryption_key")):
            return cls(home, is_in_env_file=False)
        if source.startswith(f"{home.env_file}:"):
            return cls(home, is_in_env_file=True)
        return None

    def replace(self, old: Cipher, new: Cipher) -> Path:
        """The old key is kept: copies of the database from before need it. The file with it."""
        kept = self.home.write_secret(f"encryption_key.{old.key_id}", old.key)
        if self.is_in_env_file:
            path = self.home.env_file
            write_private(path, with_value(path, "ENCRYPTION_KEY", new.key.reveal()))
        else:
            self.home.write_secret("encryption_key", new.key)
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    new_key: str  # its id
    old_key: str
    was_begun: bool  # by an earlier command
    reencrypted: int
    old_key_file: Path | None  # in the home, when the keys are kept there
    unfinished_because: str | None  # None: the old key opens nothing any more


def rotate(
    store: Store,
    settings: Settings,
    new_key: Secret | None,
    *,
    place: KeyPlace | None,
    is_shared: bool,
    at: datetime,
) -> Outcome:
    """To a key made here unless one is given. `place` takes the new key; None: its owner does.

    With `is_shared` servers of other homes may use the database. Raises Conflict.
    """
    rotation = begin_rotation(store, new_key, at=at)
    begun_at = time.monotonic()
    kept = None if place is None else place.replace(rotation.old, rotation.new)
    counts = reencrypt(store)
    if place is None:
        reason: str | None = "the new key must be given to every server first, as ENCRYPTION_KEY"
    else:
        reason = _hand_over(settings, rotation.new, begun_at)
    if reason is None and is_shared:
        reason = "other servers may use the database, which must be given the new key first"
    if reason is None:
        finish_rotation(store)
    _record(store, settings, rotation, is_finished=reason is None)
    return Outcome(
        new_key=rotation.new.key_id,
        old_key=rotation.old.key_id,
        was_begun=rotation.was_begun,
        reencrypted=counts.encrypted,
        old_key_file=kept,
        unfinished_because=reason,
    )


def _hand_over(settings: Settings, new: Cipher, begun_at: float) -> str | None:
    """Gives a running server the key that its home has now; why that failed, if it did."""
    if (server := _running_server(settings)) is None:
        return None
    try:
        server = request_reload(
            server.pid, pid_file=settings.home.pid_file, state_file=settings.home.state_file
        )
    except LLMProxyError as exc:
        return f"the server with pid {server.pid} did not take the new key: {exc}"
    if server.encryption_key_id != new.key_id:
        return (
            f"the server with pid {server.pid} has its key from elsewhere (its environment, or "
            "an env file), where the old one still is"
        )
    # Workers that finish their last requests keep the old key, and learn the new one so.
    time.sleep(max(0.0, begun_at + _LEARNED_WITHIN_S - time.monotonic()))
    return None


def finish(store: Store, settings: Settings) -> bool:
    """False when no rotation was begun. Raises Conflict while it is known that a key is old."""
    rotation = begun_rotation(store)
    if rotation is None:
        return False
    assert settings.encryption_key is not None  # it opened the store
    if key_id(settings.encryption_key) != rotation.new.key_id:
        raise Conflict(
            "ENCRYPTION_KEY is still the old key here; set the new one, or where it was generated "
            "run the rotation again: llm-proxy db rotate-key --generate"
        )
    server = _running_server(settings)
    if server is not None and server.encryption_key_id != rotation.new.key_id:
        raise Conflict(
            f"the server with pid {server.pid} still has the old key; give it the new one and "
            "restart it (or reload it, where the key is in a file), then finish"
        )
    is_finished = finish_rotation(store)
    _record(store, settings, rotation, is_finished=is_finished)
    return is_finished


def _record(store: Store, settings: Settings, rotation: Rotation, *, is_finished: bool) -> None:
    """In the audit log: ids of keys, never a key."""
    if not settings.audit_enabled:
        return
    settings.home.ensure()
    details = {
        "old_key": rotation.old.key_id,
        "new_key": rotation.new.key_id,
        "is_finished": is_finished,
    }
    entry = AuditEntry(action="encryption.rotate", actor="cli", outcome="success", details=details)
    append_entries(store, host_identity(settings.home), [entry], at=datetime.now(UTC))


def _running_server(settings: Settings) -> ServerState | None:
    """That of the home."""
    pid = running_pid(settings.home.pid_file)
    state = read_state(settings.home.state_file)
    return state if pid is not None and state is not None and state.pid == pid else None
