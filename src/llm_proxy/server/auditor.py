"""What the supervisor tells the audit log, and how strangers' many failures become few records."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, Final

from llm_proxy.audit import AuditEntry
from llm_proxy.audit_chain import Verdict
from llm_proxy.server.audit_counts import AuditCounts, Budget
from llm_proxy.server.audit_file import AuditFile
from llm_proxy.server.audit_log import AuditLog
from llm_proxy.server.channel import Refused
from llm_proxy.settings import Settings
from llm_proxy.store.database import Store

SUMMARY_EVERY_S: Final = 5.0


class Auditor:
    """The control plane's AuditTrail, too."""

    def __init__(self, log: AuditLog, *, summary_every_s: float) -> None:
        self._log = log
        self._summary_every_s = summary_every_s
        self._denied = AuditCounts("auth.failed", "management_api", Budget())
        self._refused = AuditCounts("proxy.refused", "system", Budget())

    @property
    def status(self) -> str:
        if self._log.problem is None and self._log.is_store_lost:
            return "its tables in the database can't be used"
        return self._log.problem or "ok"

    async def require(self) -> None:
        await self._log.require()

    def write(self, store: Store, entry: AuditEntry) -> None:
        self._log.write(store, entry)

    async def flush(self) -> None:
        await self._log.flush()

    async def append(self, *entries: AuditEntry) -> None:
        await self._log.append(*entries)

    async def verify(self) -> Sequence[Verdict]:
        return await self._log.verify()

    async def deny(self, entry: AuditEntry) -> None:
        client_ip, reason = entry.client_ip or "", entry.reason or ""
        is_told = self._denied.may_tell(client_ip, time.monotonic())
        if not is_told or not await self._log.append_if_possible(entry):
            self._denied.add((reason, "", "", client_ip))

    def count_refused(self, refused: Refused) -> None:
        for told in refused.counts:
            kind = (told.code, told.token_id, told.project_id, told.client_ip)
            self._refused.add(kind, told.count)
        self._refused.add_rest(refused.others)

    async def tell(self, action: str, error: str | None = None, **details: Any) -> None:
        """Of the server itself; whether it can be recorded or not."""
        entry = AuditEntry(
            action=action,
            actor="system",
            outcome="success" if error is None else "error",
            reason=error,
            details=details,
        )
        await self._log.append_if_possible(entry)

    async def tell_expired(self, token_ids: Sequence[str]) -> None:
        entries = [
            AuditEntry(action="token.expire", actor="system", outcome="success", token_id=token_id)
            for token_id in token_ids
        ]
        await self._log.append_if_possible(*entries)

    async def open(self) -> None:
        """Raises ConfigError when the file can't be used."""
        await self._log.open()

    async def close(self) -> None:
        """The last record, when everything else has ended."""
        await self.summarise()
        await self.tell("server.stop", pid=os.getpid())
        await self._log.close()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._log.run())
            group.create_task(self._summarise())

    async def _summarise(self) -> None:
        while True:
            await asyncio.sleep(self._summary_every_s)
            await self.summarise()

    async def summarise(self) -> None:
        for counts in (self._refused, self._denied):
            entries = counts.take(time.monotonic())
            if entries and not await self._log.append_if_possible(*entries):
                counts.put_back(entries)


def make_auditor(
    settings: Settings, store: Store, host: str, *, summary_every_s: float = SUMMARY_EVERY_S
) -> Auditor | None:
    """None: there is no audit log. The chain of a server is that of its host."""
    if not settings.audit_enabled:
        return None
    file = None
    if settings.audit_log_file is not None:
        file = AuditFile(
            settings.audit_log_file,
            chain=host,
            max_bytes=settings.audit_max_size_mb * 2**20,
            max_backups=settings.audit_max_backups,
        )
    log = AuditLog(
        store,
        chain=host,
        file=file,
        keeps_in_database=settings.audit_store_in_db,
        retention_s=settings.audit_retention,
    )
    return Auditor(log, summary_every_s=summary_every_s)
