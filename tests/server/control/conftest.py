"""The control plane on a real store, asked over ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_proxy.measurements import Snapshot, Totals
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.server.auditor import make_auditor
from llm_proxy.server.channel import Change
from llm_proxy.server.control.app import create_app
from llm_proxy.server.control.context import ControlContext, HealthReport
from llm_proxy.settings import Settings, load_settings
from llm_proxy.store.database import Store
from tests.server.control.audited import Audited

MANAGEMENT_TOKEN = "management-token-for-tests"


@dataclass
class Surroundings:
    """What the control plane sees of the supervisor; tests read and change it."""

    now: datetime = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
    report: HealthReport = HealthReport(ready=True, draining=False, checks={"workers": "ok"})
    published: list[Change] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    server: Snapshot = Snapshot()

    async def publish(self, changes: list[Change]) -> None:
        self.published += changes

    async def measure(self) -> Totals:
        return self.totals.copy()

    async def measure_server(self) -> Snapshot:
        return self.server

    def pass_time(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@pytest.fixture
def surroundings() -> Surroundings:
    return Surroundings()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db", cipher=Cipher(new_encryption_key()))
    store.open(migrate=True)
    yield store
    store.close()


@pytest.fixture
def context(store: Store, surroundings: Surroundings) -> ControlContext:
    return ControlContext(
        store=store,
        management_token=Secret(MANAGEMENT_TOKEN),
        apis=lambda: ("openai", "anthropic"),
        default_api=lambda: "openai",
        publish=surroundings.publish,
        health=lambda: surroundings.report,
        measure=surroundings.measure,
        measure_server=surroundings.measure_server,
        metrics_path="/metrics",
        now=lambda: surroundings.now,
    )


@pytest.fixture
async def client(context: ControlContext) -> AsyncIterator[httpx.AsyncClient]:
    """With the management token."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(context)),
        base_url="http://control",
        headers={"Authorization": f"Bearer {MANAGEMENT_TOKEN}"},
    ) as client:
        yield client


Create = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def create_project(client: httpx.AsyncClient) -> Create:
    async def create(**fields: Any) -> dict[str, Any]:
        body = {"name": "demo", "api_key": "sk-upstream-0123456789abcd", **fields}
        answer = await client.post("/manage/projects", json=body)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    return create


@pytest.fixture
def create_token(client: httpx.AsyncClient) -> Create:
    async def create(project_id: str, **fields: Any) -> dict[str, Any]:
        body = {"project_id": project_id, "duration_minutes": 60, **fields}
        answer = await client.post("/manage/tokens", json=body)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    return create


@pytest.fixture
async def audited(
    context: ControlContext, settings_of_audit: Settings, store: Store
) -> AsyncIterator[Audited]:
    auditor = make_auditor(settings_of_audit, store, "one")
    assert auditor is not None
    await auditor.open()
    with_audit = replace(context, audit=auditor)
    path = settings_of_audit.audit_log_file
    assert path is not None
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(with_audit)),
        base_url="http://control",
        headers={"Authorization": f"Bearer {MANAGEMENT_TOKEN}"},
    ) as client:
        yield Audited(client, with_audit, path)
    await auditor.close()


@pytest.fixture
def settings_of_audit(tmp_path: Path) -> Settings:
    return load_settings({}, environ={"LLM_PROXY_HOME": str(tmp_path)})
