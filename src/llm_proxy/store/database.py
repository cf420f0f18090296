"""The database, opened: transactions for its functions and threads to run them on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.secrets import Cipher
from llm_proxy.store.engines.connection import Kind
from llm_proxy.store.keyring import Keyring
from llm_proxy.store.migrations import migrate as apply_migrations
from llm_proxy.store.migrations import require_current
from llm_proxy.store.opening import PATIENCE_S, Database, engine_of
from llm_proxy.store.pool import Pool

P = ParamSpec("P")
R = TypeVar("R")

_MOST_WAITING = 1000


class _Inside(threading.local):
    """The transaction that this thread is in."""

    database: Database | None = None
    kind: Kind = "read"


class Store:
    """Functions of this package take it first; call them by `run`, or on threads of one's own."""

    def __init__(
        self,
        target: Path | DatabaseUrl,
        *,
        cipher: Cipher | None,
        patience_s: float = PATIENCE_S,
        pool_size: int = 1,
    ) -> None:
        """`cipher` may be None where no upstream key is read or written.

        `patience_s` limits the wait for others' locks, for the database's answers, and for a turn
        in `run`. `pool_size` is of connections to a server; a SQLite file has one.
        """
        self.target = target
        self.shown = str(target)  # in messages
        self._keyring = None if cipher is None else Keyring(self, cipher, database=self.shown)
        self._patience_s = patience_s
        self._engine = engine_of(target, patience_s=patience_s)
        self._size = pool_size if self._engine.is_shared else 1
        self._pool: Pool | None = None
        self._inside = _Inside()
        self._executor: ThreadPoolExecutor | None = None
        self._places = threading.BoundedSemaphore(_MOST_WAITING)
        self.is_given_up = False  # set it to have `run` raise at once, as a process ends

    @property
    def cipher(self) -> Keyring:
        if self._keyring is None:
            raise StoreError("the upstream keys can't be read without ENCRYPTION_KEY")
        return self._keyring

    def open(self, *, migrate: bool) -> list[str]:
        """Raises StoreError saying what is wrong. The names of the migrations it applied."""
        database = self._engine.connect(create=migrate)
        self._pool = Pool(self._engine, size=self._size, patience_s=self._patience_s)
        self._pool.add(database)
        try:
            with self._engine.translated():
                applied = self._prepare(database, migrate=migrate)
                if self._keyring is not None:
                    self._keyring.check(may_store=migrate)
        except BaseException:
            self.close()
            raise
        self._executor = ThreadPoolExecutor(self._size, thread_name_prefix="store")
        return applied

    def _prepare(self, database: Database, *, migrate: bool) -> list[str]:
        applied = []
        if migrate:
            self._engine.check(database)
            applied = apply_migrations(database, at=datetime.now(UTC))
        else:
            require_current(database)
        self._engine.settle(database)
        return applied

    def close(self) -> None:
        """Waits for what is running. May be called again."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)
        pool, self._pool = self._pool, None
        if pool is not None:
            with self._engine.translated():
                pool.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Database]:
        """One consistent view of the data."""
        with self._transaction("read") as database:
            yield database

    @contextlib.contextmanager
    def writing(self) -> Iterator[Database]:
        """One transaction: all or nothing, durable once left. Within another it is part of that.

        Writers of all processes go one by one.
        """
        with self._transaction("write") as database:
            yield database

    @contextlib.contextmanager
    def _transaction(self, kind: Kind) -> Iterator[Database]:
        inside = self._inside
        if inside.database is not None:
            if kind == "write" and inside.kind == "read":
                raise RuntimeError("what begins by reading can't go on to write")
            yield inside.database
            return
        if self._pool is None:
            raise StoreUnavailable(f"the database {self.shown} is closed")
        with self._engine.translated(), self._pool.transaction(kind) as database:
            inside.database, inside.kind = database, kind
            try:
                yield database
            finally:
                inside.database = None

    async def run(
        self, function: Callable[Concatenate[Store, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """`function(store, *args)` on a thread of the store's. A long queue is StoreUnavailable."""
        if self._executor is None:
            raise StoreUnavailable(f"the database {self.shown} is closed")
        if self.is_given_up:
            raise StoreUnavailable(f"the database {self.shown} is away, and isn't waited for")
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
                raise StoreUnavailable(f"the database {self.shown} is closed") from None
            job.cancel()  # at once, unless it has begun
            answer.cancel()  # nobody will look at how it ends
            raise

    def _behind(self) -> StoreUnavailable:
        return StoreUnavailable(f"the database {self.shown} is too slow to keep up; try again")
