"""PostgreSQL's failures as ours, each one sentence that names the database and what to do."""

from __future__ import annotations

import peewee
import psycopg

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import StoreError, StoreUnavailable, StoreUnreachable

# By SQLSTATE, or its class, the first two characters: (may it pass by itself, what to say).
_FAILURES = {
    "25006": (True, "takes no writes now (a standby, or set read-only); use the primary"),
    "28": (False, "refuses the user or the password; check DATABASE_URL"),
    "3D000": (False, "doesn't exist; make it with: createdb"),
    "3F000": (False, "has no schema that its user may make tables in; grant it one"),
    "40": (True, "undid a transaction that met another one; try again"),
    "42501": (False, "denies its user what llm-proxy needs; make the user the database's owner"),
    "53": (True, "has no room (connections, memory or disk); give it more"),
    "55P03": (True, "has been locked by another process for too long; try again"),
    "57014": (True, "took too long to answer; try again, or look at its load"),
    "57": (True, "is shutting down or starting; try again"),
    "58": (True, "has trouble with its disk; look at its log"),
    "XX": (False, "is damaged or has failed within; look at its log"),
}


def failure_of(exc: Exception, url: DatabaseUrl) -> StoreError:
    source = _source_of(exc)
    state = (source.sqlstate if source is not None else None) or ""
    found = _FAILURES.get(state) or _FAILURES.get(state[:2])
    if found is not None:
        may_pass, sentence = found
        return (StoreUnavailable if may_pass else StoreError)(f"the database {url} {sentence}")
    reason = _reason(source or exc, url)
    if state[:2] == "08" or (not state and isinstance(source, psycopg.OperationalError)):
        return _unreachable(reason, url)
    if isinstance(exc, peewee.InterfaceError) or isinstance(source, psycopg.InterfaceError):
        return StoreUnavailable(f"the database {url} is closed")
    return StoreError(f"the database {url} failed: {reason}")


def _unreachable(reason: str, url: DatabaseUrl) -> StoreError:
    """A refused login has no SQLSTATE: psycopg knows only its text."""
    for sign, state in (
        ("password", "28"),
        ("role ", "28"),
        ("pg_hba", "28"),
        ("does not exist", "3D000"),
        ("starting up", "57"),
        ("shutting down", "57"),
        ("too many", "53"),
        ("wait timeout", "57014"),
    ):
        if sign in reason:
            may_pass, sentence = _FAILURES[state]
            return (StoreUnavailable if may_pass else StoreError)(f"the database {url} {sentence}")
    return StoreUnreachable(f"the database {url} can't be reached ({reason}); is it running?")


def _source_of(exc: BaseException | None) -> psycopg.Error | None:
    while exc is not None and not isinstance(exc, psycopg.Error):
        exc = exc.__cause__ or exc.__context__
    return exc


def _reason(exc: Exception, url: DatabaseUrl) -> str:
    """The last part of the first line: the ones before it name address and port again."""
    line = (str(exc).strip().splitlines() or ["no reason given"])[0]
    reason = line.rpartition("failed: ")[2].removeprefix("FATAL:").strip()
    if url.password is not None:
        reason = reason.replace(url.password.reveal(), "***")
    return reason
