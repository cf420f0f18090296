"""The machines that serve from this database, and what becomes of leases when one is lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from llm_proxy.errors import Conflict
from llm_proxy.store.database import Store
from llm_proxy.store.leases import leases_of_host, write_off
from llm_proxy.store.opening import Database
from llm_proxy.store.timestamps import to_stored

_IS_ALIVE_S = 25  # servers say every 10 s that they live, and take their leave

_SEEN = "UPDATE hosts SET last_seen_at = ? WHERE id = ?"
_ENTER = "INSERT INTO hosts (id, last_seen_at) VALUES (?, ?)"


def beat(store: Store, host: str, at: datetime) -> Mapping[str, str]:
    """Says that this host lives. Of each other host, and of each that has leases, its last word.

    That is a time by its own clock: whoever lives says another one at each beat.
    """
    with store.writing() as database:
        seen: dict[str, str] = dict.fromkeys(
            (name for (name,) in database.sql("SELECT DISTINCT host FROM leases")), ""
        )
        seen.update(database.sql("SELECT id, last_seen_at FROM hosts"))
        if host in seen and seen[host]:
            database.sql(_SEEN, (to_stored(at), host))
        else:
            database.sql(_ENTER, (host, to_stored(at)))
    seen.pop(host, None)
    return seen


def leave(store: Store, host: str) -> None:
    """Of a host whose server has ended in order. Its leases, if any are left, are found as ever."""
    with store.writing() as database:
        database.sql("DELETE FROM hosts WHERE id = ?", (host,))


def write_off_host(store: Store, host: str, last_word: str) -> int | None:
    """Ends its leases as if all was spent; how many. None: it spoke since `last_word`."""
    with store.writing() as database:
        rows = database.sql("SELECT last_seen_at FROM hosts WHERE id = ?", (host,))
        if (rows[0][0] if rows else "") != last_word:
            return None
        database.sql("DELETE FROM hosts WHERE id = ?", (host,))
        return write_off(database, leases_of_host(database, host))


def refuse_while_served(database: Database, shown: str, at: datetime) -> None:
    """Raises Conflict while any host's server uses this database, which is `shown` so."""
    since = to_stored(at - timedelta(seconds=_IS_ALIVE_S))
    if database.sql("SELECT 1 FROM hosts WHERE last_seen_at > ? LIMIT 1", (since,)):
        raise Conflict(
            f"a server uses the database {shown}, or did a moment ago; stop it first, on every "
            f"host, and wait {_IS_ALIVE_S} s if it was killed"
        )
