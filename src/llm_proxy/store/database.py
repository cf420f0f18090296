"""The database, opened: transactions for its functions and one thread to run them on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.secrets import Cipher
from llm_proxy.store.failures import translated
from llm_proxy.store.keyring import Keyring
from llm_proxy.store.migrations import migrate as apply_migrations
from llm_proxy.store.migrations import require_current
from llm_proxy.store.opening import (
    PATIENCE_S,
    Database,
    check_integrity,
    make_private,
    open_database,
    use_wal,
)

P = ParamSpec("P")
R = TypeVar("R")

_MOST_WAITING = 1000


class Store:
    """Functions of this package take it first; call them on one thread at a time or by `run`."""

    def __init__(
        self, path: Path, *, cipher: Cipher | None, patience_s: float = PATIENCE_S
    ) -> None:
        """`cipher` may be None where no upstream key is read or written.

        `patience_s` limits the wait for another process's lock, and for a turn in `run`.
        """
        self.path = path
        self._keyring = None if cipher is None else Keyring(self, cipher, database=str(path))
        self._patience_s = patience_s
        self._database: Database | None = None
        self._file: os.stat_result | None = None  # that is open
        self._lock = threading.RLock()
        self._executor: ThreadPoolExecutor | None = None
        self._places = threading.BoundedSemaphore(_MOST_WAITING)

    @property
    def cipher(self) -> Keyring:
        if self._keyring is None:
            raise StoreError("the upstream keys can't be read without ENCRYPTION_KEY")
        return self._keyring

    def open(self, *, migrate: bool) -> list[str]:
        """Raises StoreError saying what is wrong. The names of the migrations it applied."""
        database = open_database(self.path, create=migrate, patience_s=self._patience_s)
        self._database = database
        with contextlib.suppress(OSError):
            self._file = self.path.stat()
        try:
            with translated(self.path):
                applied = self._prepare(database, migrate=migrate)
                if self._keyring is not None:
                    self._keyring.check(may_store=migrate)
        except BaseException:
            self.close()
            raise
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        return applied

    def _prepare(self, database: Database, *, migrate: bool) -> list[str]:
        applied = []
        if migrate:
            check_integrity(database, self.path)
            applied = apply_migrations(database, self.path, at=datetime.now(UTC))
        else:
            require_current(database, self.path)
        use_wal(database, self.path, patience_s=self._patience_s)
        make_private(self.path)
        return applied

    def close(self) -> None:
        """Waits for what is running. May be called again."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            database, self._database = self._database, None
            if database is not None:
                with translated(self.path):
                    database.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Database]:
        """One consistent view of the data."""
        with self._transaction("DEFERRED") as database:
            yield database

    @contextlib.contextmanager
    def writing(self) -> Iterator[Database]:
        """One transaction: all or nothing, durable once left. Within another it is part of that."""
        # IMMEDIATE: a transaction that starts to write late fails at once when another one writes.
        with self._transaction("IMMEDIATE") as database:
            yield database

    @contextlib.contextmanager
    def _transaction(self, kind: str) -> Iterator[Database]:
        with self._lock, translated(self.path):
            database = self._database
            if database is None:
                raise StoreUnavailable(f"the database {self.path} is closed")
            if database.in_transaction():
                yield database
            else:
                self._refuse_lost_file()
                with database.atomic(kind):
                    yield database

    def _refuse_lost_file(self) -> None:
        """SQLite goes on in a file that was removed, and all that it commits there is lost."""
        with contextlib.suppress(OSError):
            if self._file is not None and os.path.samestat(self._file, self.path.stat()):
                return
        raise StoreUnavailable(
            f"the database {self.path} was removed or replaced while it was open; "
            "put it back, or restart llm-proxy"
        )

    async def run(
        self, function: Callable[Concatenate[Store, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """`function(store, *args)` on the store's thread. A long queue is StoreUnavailable."""
        if self._executor is None:
            raise StoreUnavailable(f"the database {self.path} is closed")
        if not self._places.acquire(blocking=False):
            raise self._behind()
        try:
            job = self._executor.submit(function, self, *args, **kwargs)
        except BaseException:
            self._places.release()
            raise
        job.add_done_callback(lambda _: self._places.release())
        answer = asyncio.wrap_future(job)
        try:
            await asyncio.wait({answer}, timeout=self._patience_s)
            if not answer.done() and job.cancel():  # what has begun is waited for
                raise self._behind()
            return await answer
        except asyncio.CancelledError:
            if self._executor is None:
                raise StoreUnavailable(f"the database {self.path} is closed") from None
            job.cancel()  # at once, unless it has begun
            answer.cancel()  # nobody will look at how it ends
            raise

    def _behind(self) -> StoreUnavailable:
        return StoreUnavailable(f"the database {self.path} is too slow to keep up; try again")
