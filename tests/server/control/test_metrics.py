from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_proxy.measurements import Series, Snapshot
from llm_proxy.server.control.app import create_app
from llm_proxy.server.control.context import ControlContext

pytestmark = pytest.mark.anyio


async def ask(context: ControlContext, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        return await client.get(path)


async def test_metrics_are_told_to_anybody_in_the_text_format(
    context: ControlContext, surroundings: Any
) -> None:
    surroundings.totals.add(Snapshot(counters=(Series("requests", ("openai", "200"), 3),)))
    surroundings.server = Snapshot(gauges=(Series("uptime_seconds", (), 12.5),))
    answer = await ask(context, "/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    assert families["llm_proxy_requests"].samples[0].value == 3
    assert families["llm_proxy_uptime_seconds"].samples[0].value == 12.5


async def test_the_path_of_the_older_program_still_works(context: ControlContext) -> None:
    assert (await ask(context, "/metrics/prometheus")).status_code == 200


async def test_metrics_can_be_elsewhere(context: ControlContext) -> None:
    moved = replace(context, metrics_path="/internal/numbers")
    assert (await ask(moved, "/internal/numbers")).status_code == 200
    assert (await ask(moved, "/metrics")).status_code == 404


async def test_metrics_can_be_switched_off(context: ControlContext) -> None:
    off = replace(context, metrics_path=None)
    answer = await ask(off, "/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
