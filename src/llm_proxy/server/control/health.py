"""/health, /ready and /live."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import llm_proxy
from llm_proxy.errors import StoreError
from llm_proxy.measurements import Circuit
from llm_proxy.server.control.answers import json_answer
from llm_proxy.server.control.context import ControlContext
from llm_proxy.store.database import Store

_STORE_TIMEOUT_S = 2.0


class Health:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    async def health(self, request: Request) -> Response:
        """503 when a check fails; a server that drains is healthy still, and one whose upstream
        fails is degraded: to send requests elsewhere would take the other apis away too."""
        report = self._context.health()
        checks, totals = await asyncio.gather(self._checks(report.checks), self._context.measure())
        circuits = [_circuit(api, totals.circuits) for api in self._context.apis()]
        is_healthy = _all_pass(checks)
        audit = self._context.audit.status
        is_degraded = (
            audit not in ("ok", "off")
            or not _all_pass(report.beside)
            or any(one.state != "closed" for one in circuits)
        )
        upstreams = {circuit.api: _upstream(circuit) for circuit in circuits}
        content = {
            "status": "unhealthy" if not is_healthy else "degraded" if is_degraded else "ok",
            "timestamp": self._context.now(),
            "version": llm_proxy.__version__,
            "checks": {**checks, **report.beside, "audit": audit, "upstreams": upstreams},
        }
        return json_answer(content, status=200 if is_healthy else 503)

    async def ready(self, request: Request) -> Response:
        """Whether requests should be sent here."""
        report = self._context.health()
        checks = await self._checks(report.checks)
        if report.draining:
            status = "draining"
        elif not report.ready:
            status = "starting"
        else:
            status = "ready" if _all_pass(checks) else "unhealthy"
        content = {"status": status, "checks": checks}
        return json_answer(content, status=200 if status == "ready" else 503)

    async def live(self, request: Request) -> Response:
        return json_answer({"status": "alive"})

    async def _checks(self, reported: Mapping[str, str]) -> dict[str, str]:
        if "store" in reported:  # known to be away: another question would only take time
            return dict(reported)
        return {"store": await self._check_store(), **reported}

    async def _check_store(self) -> str:
        try:
            async with asyncio.timeout(_STORE_TIMEOUT_S):
                await self._context.store.run(_ask)
        except TimeoutError:
            return f"no answer within {_STORE_TIMEOUT_S:g} s"
        except StoreError:
            return "unavailable"
        return "ok"


def _circuit(api: str, circuits: Mapping[str, Circuit]) -> Circuit:
    return circuits.get(api) or Circuit(api, "closed", "", 0.0)


def _upstream(circuit: Circuit) -> dict[str, Any]:
    """The worst circuit breaker of an api, and why it would be that."""
    told: dict[str, Any] = {"circuit": circuit.state}
    if circuit.reason:
        told["last_failure"] = circuit.reason
        told["last_failure_at"] = datetime.fromtimestamp(int(circuit.failed_at), UTC)
    return told


def _ask(store: Store) -> None:
    with store.reading() as database:
        database.sql("SELECT count(*) FROM meta")


def _all_pass(checks: Mapping[str, str]) -> bool:
    return all(result == "ok" for result in checks.values())
