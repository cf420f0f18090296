"""Connections to one database, a limited number of them, kept while they work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from llm_proxy.errors import StoreUnavailable
from llm_proxy.store.engines.connection import Database, Kind
from llm_proxy.store.engines.engine import Engine

_QUICK_S: Final = 0.5


class Pool:
    def __init__(self, engine: Engine, *, size: int, patience_s: float) -> None:
        """`patience_s` limits the wait for a connection that others have."""
        self._engine = engine
        self._patience_s = patience_s
        self._size = size
        self._idle: list[Database] = []
        self._places = threading.BoundedSemaphore(size)
        self._is_open = True

    def add(self, database: Database) -> None:
        """One that is open already."""
        self._idle.append(database)

    @contextmanager
    def transaction(self, kind: Kind) -> Iterator[Database]:
        if not self._places.acquire(timeout=self._patience_s):
            raise StoreUnavailable(
                f"the database {self._engine.shown} is too slow to keep up; try again"
            )
        try:
            database, transaction = self._begin(kind)
            error: BaseException | None = None
            try:
                yield database
            except BaseException as exc:
                error = exc
                raise
            finally:
                try:
                    _end(transaction, error)
                finally:
                    self._give_back(database)
        finally:
            self._places.release()

    def _begin(self, kind: Kind) -> tuple[Database, AbstractContextManager[object]]:
        """A kept connection may have been cut off meanwhile: then a new one is tried, once."""
        while True:
            database, is_kept = self._take()
            begun = time.monotonic()
            transaction: AbstractContextManager[object] = database.atomic(kind)
            try:
                transaction.__enter__()
                return database, transaction
            except BaseException:
                was_quick = time.monotonic() - begun < _QUICK_S  # so that nobody waits twice
                was_cut_off = is_kept and was_quick and database.is_broken()
                self._give_back(database)
                if not was_cut_off:
                    raise

    def _take(self) -> tuple[Database, bool]:
        if not self._is_open:
            raise StoreUnavailable(f"the database {self._engine.shown} is closed")
        while self._idle:
            database = self._idle.pop()  # the last one used, so that the rest may be cut off
            if not database.is_broken():
                return database, True
            database.close()
        return self._engine.connect(), False

    def _give_back(self, database: Database) -> None:
        if self._is_open and not database.is_broken():
            self._idle.append(database)
        else:
            database.close()

    def close(self) -> None:
        """Waits for those that are in use, only so long: they are closed when they come back."""
        self._is_open = False
        for _ in range(self._size):
            self._places.acquire(timeout=self._patience_s)
        while self._idle:
            self._idle.pop().close()


def _end(transaction: AbstractContextManager[object], error: BaseException | None) -> None:
    if error is None:
        transaction.__exit__(None, None, None)
    else:
        transaction.__exit__(type(error), error, error.__traceback__)
