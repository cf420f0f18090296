"""A control plane with a real audit log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx

from llm_proxy.audit import AuditRecord, decode_record
from llm_proxy.server.control.context import ControlContext
from llm_proxy.store.audit import records_after


@dataclass(frozen=True)
class Audited:
    client: httpx.AsyncClient  # with the management token
    context: ControlContext
    path: Path  # of the file

    @property
    def records(self) -> list[AuditRecord]:
        """The file's, which are the database's."""
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        found = [decode_record(line) for line in lines]
        assert found == records_after(self.context.store, "one", 0)[: len(found)]
        return found

    @property
    def last(self) -> AuditRecord:
        return self.records[-1]
