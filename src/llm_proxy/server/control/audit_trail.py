"""What a management request leaves in the audit log, gathered while it is handled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_proxy.audit import AuditEntry, Outcome
from llm_proxy.audit_chain import Verdict
from llm_proxy.store.database import Store


class AuditTrail(Protocol):
    """Where the entries go."""

    @property
    def status(self) -> str:
        """ok, off, or what is wrong."""

    async def require(self) -> None:
        """Raises Refusal while nothing may be changed, because it couldn't be recorded."""

    def write(self, store: Store, entry: AuditEntry) -> None:
        """Within a transaction of the caller, on the store's thread; `flush` when it is done."""

    async def flush(self) -> None:
        """Returns when what was written is durable."""

    async def append(self, *entries: AuditEntry) -> None:
        """Returns when they are durable."""

    async def deny(self, entry: AuditEntry) -> None:
        """A stranger was refused; of many such events only some get a record of their own."""

    async def verify(self) -> Sequence[Verdict]: ...


class NoAudit:
    status = "off"

    async def require(self) -> None: ...
    def write(self, store: Store, entry: AuditEntry) -> None: ...
    async def flush(self) -> None: ...
    async def append(self, *entries: AuditEntry) -> None: ...
    async def deny(self, entry: AuditEntry) -> None: ...
    async def verify(self) -> Sequence[Verdict]:
        return []


@dataclass(slots=True, kw_only=True)
class Draft:
    """The record of one request, as far as it is known."""

    action: str
    client_ip: str | None
    request_id: str
    method: str
    path: str
    user_agent: str | None
    project_id: str | None = None
    token_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    is_written: bool = False

    def entry(self, outcome: Outcome, reason: str | None = None) -> AuditEntry:
        return AuditEntry(
            action=self.action,
            actor="management_api",
            outcome=outcome,
            client_ip=self.client_ip,
            request_id=self.request_id,
            method=self.method,
            path=self.path,
            user_agent=self.user_agent,
            project_id=self.project_id,
            token_id=self.token_id,
            reason=reason,
            details=self.details,
        )

    def concerns(self, kind: str, object_id: str) -> None:
        if kind.startswith("project"):
            self.project_id = object_id
        else:
            self.token_id = object_id


# Of the request being handled: whoever commits its change writes the record in the same
# transaction, without every function in between passing it on.
current_draft: ContextVar[Draft | None] = ContextVar("current_draft", default=None)


def note_fields(names: Iterable[str]) -> None:
    """Which fields the request sent. Never what is in them."""
    draft = current_draft.get()
    if draft is not None and (fields := sorted(names)):
        draft.details["fields"] = fields


def subject_of(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    """The action that a request asks for, and the ids that it names; None: it isn't recorded."""
    match method, path.split("/")[2:]:
        case "POST", ["projects"]:
            return "project.create", {}
        case "PATCH" | "PUT", ["projects", project_id]:
            return "project.update", {"project_id": project_id}
        case "DELETE", ["projects", project_id]:
            return "project.delete", {"project_id": project_id}
        case "POST", ["projects", project_id, "tokens", "revoke"]:
            return "token.revoke_batch", {"project_id": project_id}
        case "POST", ["tokens"]:
            return "token.create", {}
        case "PATCH" | "PUT", ["tokens", token_id]:
            return "token.update", {"token_id": token_id}
        case "DELETE", ["tokens", token_id]:
            return "token.revoke", {"token_id": token_id}
        case "POST", ["tokens", token_id, "rotate"]:
            return "token.rotate", {"token_id": token_id}
        case "GET" | "HEAD", ["audit"]:
            return "audit.list", {}
        case "GET" | "HEAD", ["audit", "verify"]:
            return "audit.verify", {}
        case "GET" | "HEAD", ["audit", _]:
            return "audit.show", {}
        case "POST" | "PATCH" | "PUT" | "DELETE", _:
            return "management.request", {}
    return None
