from __future__ import annotations

from typing import Any

import httpx
import pytest

import llm_proxy
from llm_proxy.measurements import Circuit
from llm_proxy.server.control.context import ControlContext, HealthReport

pytestmark = pytest.mark.anyio


async def test_a_server_that_is_well_says_so_to_anybody(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    answer = await client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "timestamp": "2030-01-02T03:04:05.678901Z",
        "version": llm_proxy.__version__,
        "checks": {
            "store": "ok",
            "workers": "ok",
            "audit": "off",
            "upstreams": {"openai": {"circuit": "closed"}, "anthropic": {"circuit": "closed"}},
        },
    }
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    answer = await client.get("/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


@pytest.mark.parametrize(
    ("report", "health", "ready", "status"),
    [
        (HealthReport(ready=False, draining=False, checks={}), 200, 503, "starting"),
        (HealthReport(ready=True, draining=True, checks={}), 200, 503, "draining"),
        (HealthReport(ready=False, draining=True, checks={}), 200, 503, "draining"),
        (
            HealthReport(ready=True, draining=False, checks={"workers": "1 of 2 running"}),
            503,
            503,
            "unhealthy",
        ),
    ],
)
async def test_readiness_is_told_apart_from_health(
    client: httpx.AsyncClient,
    surroundings: Any,
    report: HealthReport,
    health: int,
    ready: int,
    status: str,
) -> None:
    surroundings.report = report
    assert (await client.get("/health")).status_code == health
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (ready, status)
    assert (await client.get("/live")).status_code == 200


async def test_an_open_circuit_degrades_the_server_and_does_not_make_it_unhealthy(
    client: httpx.AsyncClient, surroundings: Any
) -> None:
    circuits = surroundings.totals.circuits
    circuits["anthropic"] = Circuit("anthropic", "open", "status 503", 1893553445.9)
    circuits["gone"] = Circuit("gone", "open", "status 500", 1.0)  # of an earlier configuration
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["checks"]["upstreams"] == {
        "openai": {"circuit": "closed"},
        "anthropic": {
            "circuit": "open",
            "last_failure": "status 503",
            "last_failure_at": "2030-01-02T03:04:05Z",
        },
    }
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")


async def test_a_circuit_that_closed_again_still_tells_its_last_failure(
    client: httpx.AsyncClient, surroundings: Any
) -> None:
    surroundings.totals.circuits["openai"] = Circuit("openai", "closed", "status 500", 1.0)
    answer = await client.get("/health")
    assert answer.json()["status"] == "ok"
    assert answer.json()["checks"]["upstreams"]["openai"]["last_failure"] == "status 500"


async def test_a_store_out_of_reach_makes_it_neither_healthy_nor_ready(
    client: httpx.AsyncClient, context: ControlContext
) -> None:
    context.store.close()
    for path in ("/health", "/ready"):
        answer = await client.get(path)
        assert answer.status_code == 503
        assert answer.json()["checks"]["store"] == "unavailable"
