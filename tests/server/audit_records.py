"""Audit records for tests of what keeps them."""

from __future__ import annotations

from llm_proxy.audit import AuditEntry, AuditRecord, Head, head_of, seal

_NOTHING = Head()
ENTRY = AuditEntry(action="token.create", actor="system", outcome="success")


def make_records(count: int, *, chain: str = "one", head: Head = _NOTHING) -> list[AuditRecord]:
    records = []
    for _ in range(count):
        record = seal(ENTRY, head, chain=chain, timestamp="2030-01-02T03:04:05.678901Z")
        records.append(record)
        head = head_of(record)
    return records
