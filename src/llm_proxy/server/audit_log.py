"""The audit log of this server: its chain in the database, and a file that follows it.

A record is committed to the database first, for a change together with the change itself; the file
is fed from there. So the two can't contradict each other, and what a crash or a full disk kept out
of the file is written to it afterwards.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Concatenate, Final, ParamSpec, TypeVar

from llm_proxy.audit import AuditEntry, Head, head_of
from llm_proxy.audit_chain import ChainCheck, Verdict, open_file, verify_open_files
from llm_proxy.errors import ConfigError, LLMProxyError, Refusal, StoreError
from llm_proxy.server.audit_file import AuditFile
from llm_proxy.store.audit import (
    adopt_records,
    append_entries,
    chain_state,
    chain_states,
    forget_older,
    forget_through,
    records_after,
    verify_chain,
)
from llm_proxy.store.database import Store

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S: Final = 5.0  # for the disk of the file
RETRY_S: Final = 5.0  # how often a file that can't be written is tried again
_RETENTION_EVERY_S: Final = 3600.0
_MAY_PASS: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO))


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _read_tables(store: Store, chain: str) -> None:
    records_after(store, chain, chain_state(store, chain).head.sequence)


class AuditLog:
    def __init__(
        self,
        store: Store,
        *,
        chain: str,
        file: AuditFile | None,
        keeps_in_database: bool = True,
        retention_s: float,
        now: Callable[[], datetime] = _utc_now,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Without `keeps_in_database` records leave the database once they are in the file."""
        self._store = store
        self._chain = chain
        self._file = file
        self._keeps_in_database = keeps_in_database
        self._retention_s = retention_s
        self._now = now
        self._patience_s = patience_s
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")
        self._wanted = self._copied = 0  # how often the file was to be brought up to date
        self._copying: asyncio.Task[bool] | None = None
        self.problem: str | None = None  # why the file can't be written
        self.is_store_lost = False  # its tables could not be used at the last try

    async def open(self) -> None:
        """Brings file and database together. Raises ConfigError when the file can't be used."""
        if self._file is None:
            return
        try:
            await self._on_disk(self._file.ensure_open)
            await self._reconcile(self._file)
        except OSError as exc:
            if exc.errno not in _MAY_PASS:
                raise ConfigError(
                    f"the audit log {self._file.path} can't be written: {exc.strerror or exc}; "
                    "set AUDIT_LOG_FILE to a file that can, or to off"
                ) from exc
            self._note_problem(exc.strerror or str(exc))
        await self.flush()

    async def _reconcile(self, file: AuditFile) -> None:
        """1. The file ends where the chain was: what it lacks is copied later.
        2. It knows more: the database came from a backup, and gets the rest.
        3. They contradict each other: somebody changed one of them; the file is set aside."""
        state = await self._store.run(chain_state, self._chain)
        head = file.head
        if head.sequence > state.head.sequence:
            records = await self._on_disk(lambda: file.read_after(state.head.sequence))
            before = state.head if state.head.sequence else None
            check = ChainCheck(file.path.name, before=before)
            if records and all(check.take(record, file.path.name) for record in records):
                await self._store.run(adopt_records, records)
                what = f"{len(records)} record(s) were only in {file.path.name}"
                await self._commit([self._own("audit.restore", what)])
                return
        elif not head.sequence or await self._is_known(head):
            if head.sequence:
                await self._note_what_is_missing(head, state.head)
            return
        why = f"its last record, {head.sequence}, isn't the database's"
        await self._on_disk(lambda: file.set_aside(why))

    async def _is_known(self, head: Head) -> bool:
        """Whether the database has it, or has deleted it in order."""
        state = await self._store.run(chain_state, self._chain)
        if head == state.head or head.sequence < state.kept_from:
            return True
        found = await self._store.run(records_after, self._chain, head.sequence - 1)
        return bool(found) and head_of(found[0]) == head

    async def _note_what_is_missing(self, head: Head, wanted: Head) -> None:
        """A crash leaves a few out of the file; so does whoever cuts off its end."""
        missing = await self._store.run(records_after, self._chain, head.sequence)
        are_here = bool(missing) and missing[0].sequence == head.sequence + 1
        if head == wanted or (are_here and all(record.actor == "cli" for record in missing)):
            return  # commands write to the database alone
        what = f"it ended with the record {head.sequence}, but {wanted.sequence} was written"
        end = "they are written anew" if are_here else "what is between is gone"
        await self._commit([self._own("audit.repair", f"{what}; {end}")])

    # ---- recording ----

    def write(self, store: Store, entry: AuditEntry) -> None:
        """Within a transaction of the caller, on the store's thread; `flush` when it is done."""
        append_entries(store, self._chain, [entry], at=self._now())

    async def append(self, *entries: AuditEntry) -> None:
        """Returns when they are durable."""
        await self._commit(entries)
        await self.flush()

    async def append_if_possible(self, *entries: AuditEntry) -> bool:
        """For what happens whether it can be recorded or not."""
        try:
            await self.append(*entries)
        except StoreError as exc:
            for entry in entries:
                logger.error("%s (%s) isn't in the audit log: %s", entry.action, entry.outcome, exc)
            return False
        return True

    async def _commit(self, entries: Sequence[AuditEntry]) -> None:
        await self._ask(append_entries, self._chain, list(entries), at=self._now())

    async def _ask(
        self, function: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The database, and remembers whether it could be had."""
        try:
            answer = await self._store.run(function, *args, **kwargs)
        except StoreError as exc:
            if not self.is_store_lost:
                logger.error("the audit log in the database can't be used: %s", exc)
            self.is_store_lost = True
            raise
        if self.is_store_lost:
            logger.info("the audit log in the database can be used again")
        self.is_store_lost = False
        return answer

    def _own(self, action: str, reason: str) -> AuditEntry:
        return AuditEntry(action=action, actor="system", outcome="error", reason=reason)

    async def require(self) -> None:
        """Raises Refusal while the file can't be written: nothing may be changed unrecorded."""
        if self.problem is not None:
            await self.flush()
        if self.problem is not None:
            raise Refusal(
                "audit_unavailable",
                "the audit log can't be written, so nothing may be changed; "
                "the server's log says why",
                headers={"Retry-After": "5"},
            )

    # ---- the file ----

    async def flush(self) -> None:
        """Returns when all that is committed is in the file, or it is known not to work."""
        if self._file is None:
            return
        self._wanted += 1
        ticket, deadline = self._wanted, asyncio.get_running_loop().time() + self._patience_s
        while self._copied < ticket:
            if self._copying is None or self._copying.done():
                # What is asked for while this runs shares the next one.
                self._copying = asyncio.create_task(self._copy(self._file, self._wanted))
            copying, left_s = self._copying, deadline - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait({copying}, timeout=max(0.0, left_s))
            if not done:
                self._note_problem(f"it took longer than {self._patience_s:g} s")
            if not done or not copying.result():
                return

    async def _copy(self, file: AuditFile, ticket: int) -> bool:
        """Whether it worked."""
        try:
            while await self._copy_some(file):
                pass
        except OSError as exc:
            self._note_problem(exc.strerror or str(exc))
            return False
        except StoreError:
            return False
        self._copied = ticket
        if self.problem is not None:
            logger.warning("the audit log %s is complete again", file.path)
            self.problem = None
        return True

    async def _copy_some(self, file: AuditFile) -> bool:
        """Whether there may be more."""
        await self._on_disk(file.ensure_open)
        if file.mended:
            await self._commit([self._own("audit.repair", what) for what in file.mended])
            file.mended = []
        records = await self._ask(records_after, self._chain, file.head.sequence)
        if records:
            await self._on_disk(lambda: file.append(records))
        return bool(records)

    async def _on_disk(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function)

    def _note_problem(self, problem: str) -> None:
        if self.problem is None:
            logger.error(
                "the audit log %s can't be written (%s): the management API changes nothing "
                "until it can",
                None if self._file is None else self._file.path,
                problem,
            )
        self.problem = problem

    # ---- looking after it ----

    async def run(self) -> None:
        """Until it is cancelled."""
        cleaned_at = float("-inf")
        while True:
            now = asyncio.get_running_loop().time()
            await self.flush()  # also what commands wrote, or a client did not wait for
            with suppress(StoreError):  # without a file or changes nobody else would notice
                await self._ask(_read_tables, self._chain)
            if not self._keeps_in_database or now - cleaned_at >= _RETENTION_EVERY_S:
                cleaned_at = now
                await self.clean_up()
            await asyncio.sleep(RETRY_S)

    async def clean_up(self) -> None:
        """Deletes from the database what is older than wanted, of servers that are gone, too."""
        before = self._now() - timedelta(seconds=self._retention_s)
        try:
            for state in await self._store.run(chain_states):
                while await self._store.run(forget_older, state.chain, before):
                    pass
            if self._file is not None and not self._keeps_in_database:
                sequence = self._file.head.sequence
                while await self._store.run(forget_through, self._chain, sequence):
                    pass
        except LLMProxyError as exc:
            logger.error("old audit records could not be deleted: %s", exc)

    async def verify(self) -> list[Verdict]:
        """Every chain of the database, and the file of this server."""
        states = await self._store.run(chain_states)
        verdicts = [await verify_chain(self._store, state) for state in states]
        if self._file is not None:
            verdicts.append(await self._verify_file(self._file))
        return verdicts

    async def _verify_file(self, file: AuditFile) -> Verdict:
        written = (await self._store.run(chain_state, self._chain)).head
        await self.flush()
        # On the thread that writes, so that no line is half written and no file is rotated.
        files, head = await self._on_disk(
            lambda: ([open_file(path) for path in file.paths], file.head)
        )
        head = max(written, head, key=lambda one: one.sequence)
        return await asyncio.to_thread(verify_open_files, files, head=head)

    async def close(self) -> None:
        if self._copying is not None:
            await asyncio.wait({self._copying}, timeout=self._patience_s)
        self._disk.shutdown(wait=self.problem is None, cancel_futures=True)
        if self._file is not None:
            self._file.close()
