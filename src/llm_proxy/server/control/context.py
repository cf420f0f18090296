"""What the control plane is given to work with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Concatenate, ParamSpec, TypeVar

from llm_proxy.measurements import Snapshot, Totals
from llm_proxy.secrets import Secret
from llm_proxy.server.channel import Change
from llm_proxy.server.control.audit_trail import AuditTrail, NoAudit, current_draft
from llm_proxy.store.changes import last_change_id
from llm_proxy.store.database import Store

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    ready: bool  # requests are served
    draining: bool
    checks: Mapping[str, str]  # "ok", or what is wrong
    beside: Mapping[str, str] = field(default_factory=dict)  # the same, of what can be missed


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def _no_totals() -> Totals:
    return Totals()


async def _no_snapshot() -> Snapshot:
    return Snapshot()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlContext:
    store: Store
    management_token: Secret
    apis: Callable[[], tuple[str, ...]]  # names of those configured at the moment
    default_api: Callable[[], str]
    publish: Callable[[list[Change]], Awaitable[None]]  # returns when every worker obeys
    health: Callable[[], HealthReport]
    measure: Callable[[], Awaitable[Totals]] = _no_totals  # what the workers counted
    measure_server: Callable[[], Awaitable[Snapshot]] = _no_snapshot  # the rest
    metrics_path: str | None = None  # None: there are no metrics
    audit: AuditTrail = NoAudit()
    now: Callable[[], datetime] = _utc_now

    async def commit(
        self,
        changed: Change,
        function: Callable[Concatenate[Store, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Runs a store function that writes, then tells the workers what `changed`.

        The audit record of the request that it is for is part of the same transaction.
        """
        draft = current_draft.get()
        await self.audit.require()

        def write_recorded(store: Store) -> tuple[R, bool]:
            """And whether that changed anything: asking for what is so already doesn't."""
            with store.writing():
                before = last_change_id(store)
                result = function(store, *args, **kwargs)
                has_changed = last_change_id(store) != before
                if draft is not None and has_changed:
                    draft.concerns(changed.kind, changed.id)
                    self.audit.write(store, draft.entry("success"))
            return result, has_changed

        async def write_and_tell() -> R:
            result, has_changed = await self.store.run(write_recorded)
            if draft is not None and has_changed:
                draft.is_written = True
            await self.publish([changed])
            return result

        task = asyncio.create_task(write_and_tell())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The client has gone, but what is committed must reach the workers all the same.
            await asyncio.wait({task})
            raise
