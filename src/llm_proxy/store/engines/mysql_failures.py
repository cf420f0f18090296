"""MySQL's failures as ours, each one sentence that names the database and what to do."""

from __future__ import annotations

import peewee
import pymysql

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import StoreError, StoreUnavailable, StoreUnreachable

_LOCKED = (True, "has been locked by another process for too long; try again")
_SLOW = (True, "took too long to answer; try again, or look at its load")
_LOGIN = (False, "refuses the user or the password; check DATABASE_URL")
_FULL = (True, "has no room (connections, memory or disk); give it more")
_ENDING = (True, "is shutting down; try again")
_READ_ONLY = (True, "takes no writes now (a replica, or set read-only); use the primary")
_DENIED = (False, "denies its user what llm-proxy needs; grant it all on this database")

# By number: (may it pass by itself, what to say).
_FAILURES = {
    1021: _FULL,  # disk full
    1040: _FULL,  # too many connections
    1041: _FULL,  # out of memory
    1044: _DENIED,
    1045: _LOGIN,
    1049: (False, "doesn't exist; make it with: CREATE DATABASE … CHARACTER SET utf8mb4"),
    1053: _ENDING,
    1114: _FULL,  # table is full
    1142: _DENIED,
    1203: _FULL,  # too many connections of this user
    1205: _LOCKED,
    1213: (True, "undid a transaction that met another one; try again"),  # deadlock
    1226: _FULL,
    1290: _READ_ONLY,
    1317: _SLOW,  # interrupted
    1698: _LOGIN,
    1792: _READ_ONLY,
    1836: _READ_ONLY,
    1927: _ENDING,  # connection was killed
    1969: _SLOW,  # max_statement_time
    3024: _SLOW,  # max_execution_time
}
# The driver's own numbers: it could not connect, or lost what it had.
_UNREACHABLE = frozenset({2002, 2003, 2005, 2006, 2012, 2013, 2055})


def failure_of(exc: Exception, url: DatabaseUrl) -> StoreError:
    source = _source_of(exc)
    number = source.args[0] if source is not None and source.args else None
    if number in _FAILURES:
        may_pass, sentence = _FAILURES[number]
        return (StoreUnavailable if may_pass else StoreError)(f"the database {url} {sentence}")
    reason = _reason(source or exc, url)
    if number in _UNREACHABLE:
        return StoreUnreachable(f"the database {url} can't be reached ({reason}); is it running?")
    if isinstance(exc, peewee.InterfaceError) or isinstance(source, pymysql.InterfaceError):
        return StoreUnavailable(f"the database {url} is closed")
    return StoreError(f"the database {url} failed: {reason}")


def _source_of(exc: BaseException | None) -> pymysql.MySQLError | None:
    while exc is not None and not isinstance(exc, pymysql.MySQLError):
        exc = exc.__cause__ or exc.__context__
    return exc


def _reason(exc: Exception, url: DatabaseUrl) -> str:
    text = str(exc.args[-1] if exc.args else exc)
    reason = (text.strip().splitlines() or ["no reason given"])[0]
    if url.password is not None:
        reason = reason.replace(url.password.reveal(), "***")
    return reason
