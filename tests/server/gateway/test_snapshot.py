from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_proxy.measurements import Circuit, Snapshot
from llm_proxy.providers import CircuitBreaker
from llm_proxy.secrets import Secret
from llm_proxy.server.control.exposition import COUNTERS, GAUGES, HISTOGRAMS
from llm_proxy.server.gateway.recorder import Recorder
from llm_proxy.server.gateway.snapshot import take_snapshot

pytestmark = pytest.mark.anyio

Found = dict[tuple[str, ...], int | float]


def snapshot_of(gate: Any, recorder: Recorder | None = None) -> Snapshot:
    return take_snapshot(
        gate.gateway,
        gate.upstreams,
        recorder=recorder,
        connections=len(gate.connections),
        lookups={"found": 1},
    )


def numbers(snapshot: Snapshot) -> Found:
    every = (*snapshot.counters, *snapshot.gauges, *snapshot.peaks)
    return {(series.name, *series.labels): series.value for series in every}


async def test_one_request_is_seen_everywhere(gate: Any) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"hello"))
    peer = await gate.openai.accept()
    await peer.request()
    found = numbers(snapshot_of(gate))
    assert found["requests_running",] == 1
    assert found["client_connections_open",] == 1
    assert found["tokens_known",] == 1
    assert (found["upstream_connections_open", "openai"], found["upstream_waiting", "openai"]) == (
        1,
        0,
    )
    await peer.answer(b"answer")
    await client.response()
    snapshot = snapshot_of(gate)
    found = numbers(snapshot)
    assert found["requests", "openai", "200"] == 1
    assert found["request_bytes", "openai"] == 5
    assert found["response_bytes", "openai"] == 6
    assert found["requests_running",] == 0
    assert found["client_connections",] == 1
    assert found["upstream_connects", "openai"] == 1
    assert found["upstream_connections_idle", "openai"] == 1
    assert found["token_lookups", "found"] == 1
    assert found["circuit_breakers", "openai", "closed"] == 1
    counts = {(one.name, *one.labels): sum(one.counts) for one in snapshot.distributions}
    for name in ("request_duration_seconds", "first_byte_seconds", "upstream_seconds"):
        assert counts[name, "openai"] == 1
        assert counts[name, "anthropic"] == 0


async def test_the_control_plane_is_no_api(gate: Any) -> None:
    client = await gate.connect()
    await client.send(b"GET /health HTTP/1.1\r\nHost: p\r\n\r\n")
    peer = await gate.control.accept()
    await peer.request()
    assert numbers(snapshot_of(gate))["requests_running",] == 0
    await peer.answer()
    await client.response(method="GET")
    snapshot = snapshot_of(gate)
    assert not any(series.name == "requests" for series in snapshot.counters)
    assert {circuit.api for circuit in snapshot.circuits} == {"openai", "anthropic"}


async def test_the_worst_circuit_of_an_api_is_told(start_gate: Any) -> None:
    gate = await start_gate(circuit_breaker=CircuitBreaker(failures=1, cooldown=30))
    openai = gate.upstreams[0]
    openai.breaker(Secret("sk-well"))
    ill = openai.breaker(Secret("sk-ill"))
    ill.failed(object(), "status 503")
    snapshot = snapshot_of(gate)
    assert snapshot.circuits == (
        Circuit("openai", "open", "status 503", ill.failed_at),
        Circuit("anthropic", "closed", "", 0.0),
    )
    found = numbers(snapshot)
    assert found["circuit_breakers", "openai", "open"] == 1
    assert found["circuit_breakers", "openai", "closed"] == 1
    assert found["circuit_breaker_trips", "openai"] == 1


async def test_everything_that_is_counted_has_its_place_in_the_metrics(
    gate: Any, tmp_path: Path
) -> None:
    """Under the same name, with as many labels."""
    gate.gateway.metrics.ended(("openai", 502, "upstream_broken", 0.1, 0.1, 0.1, 0, 0, False))
    snapshot = snapshot_of(gate, Recorder(str(tmp_path / "s")))
    for table, found in (
        (COUNTERS, snapshot.counters),
        (GAUGES, (*snapshot.gauges, *snapshot.peaks)),
        (HISTOGRAMS, snapshot.distributions),
    ):
        for series in found:
            labels, _ = table[series.name]
            assert len(labels) == len(series.labels), series.name
