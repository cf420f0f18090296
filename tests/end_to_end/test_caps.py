"""Lifetime caps are exact over workers, whatever crashes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_proxy.manage.client import ManagementClient
from llm_proxy.manage.objects import NewToken
from tests.end_to_end.counting_upstream import CountingUpstream, ask
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.waiting import eventually

pytestmark = pytest.mark.anyio

CONNECTIONS = 24


@pytest.fixture(scope="module")
def upstream() -> Iterator[CountingUpstream]:
    upstream = CountingUpstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def pair(
    upstream: CountingUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("caps")
    arguments = ["--workers", "2", "--manage-addr", "127.0.0.1:0"]  # workers are killed
    server = ServerProcess(folder, upstream=upstream.address, arguments=arguments)
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="module")
def manage(pair: ServerProcess) -> Iterator[ManagementClient]:
    assert pair.state.manage_address is not None
    url = f"http://{pair.state.manage_address}"
    with ManagementClient(url, pair.management_token) as client:
        yield client


@pytest.fixture(scope="module")
def project_id(manage: ManagementClient) -> str:
    return manage.create_project({"name": "caps", "api_key": "sk-upstream"}).id


def capped(manage: ManagementClient, project_id: str, cap: int | None) -> NewToken:
    fields = {"project_id": project_id, "duration_minutes": 60, "max_requests": cap}
    return manage.create_token(fields)


async def test_thousand_at_once_get_the_ten_that_are_left(
    pair: ServerProcess, manage: ManagementClient, project_id: str, upstream: CountingUpstream
) -> None:
    made = capped(manage, project_id, 10)
    answers = await ask(pair.address, made.token, name=made.id, count=1000, connections=200)
    assert answers == {"200": 10, "429": 990}
    assert upstream.counts[made.id] == 10
    eventually(lambda: manage.get_token(made.id).request_count == 10)


async def test_count_is_exact_once_traffic_rests(
    pair: ServerProcess, manage: ManagementClient, project_id: str, upstream: CountingUpstream
) -> None:
    made = capped(manage, project_id, None)
    answers = await ask(pair.address, made.token, name=made.id, count=3000, connections=40)
    assert answers == {"200": 3000}
    eventually(lambda: manage.get_token(made.id).request_count == 3000)


async def test_unused_permits_of_one_worker_are_spent_by_another(
    pair: ServerProcess, manage: ManagementClient, project_id: str, upstream: CountingUpstream
) -> None:
    made = capped(manage, project_id, 100)
    for _ in range(25):  # few at a time, over either worker
        await ask(pair.address, made.token, name=made.id, count=4, connections=4)
    answers = await ask(pair.address, made.token, name=made.id, count=1, connections=1)
    assert answers == {"429": 1}
    assert upstream.counts[made.id] == 100


@pytest.mark.parametrize("cap", [2000])
async def test_kill_of_everything_costs_no_permit_but_those_in_flight(
    cap: int, upstream: CountingUpstream, tmp_path: Path
) -> None:
    server = ServerProcess(tmp_path, upstream=upstream.address, arguments=["--workers", "2"])
    try:
        server.start()
        with server.manage() as client:
            project = client.create_project({"name": "p", "api_key": "sk-upstream"})
            made = capped(client, project.id, cap)
        state = server.state
        pids = [state.pid, *server.worker_pids]
        pids += [] if state.writer_pid is None else [state.writer_pid]

        def kill(name: str) -> None:
            if upstream.counts[made.id] == 700:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

        upstream.on_arrival = kill
        answers = await ask(
            server.address, made.token, name=made.id, count=1500, connections=CONNECTIONS
        )
        upstream.on_arrival = lambda name: None
        assert answers["lost"] > 700
        before = upstream.counts[made.id]
        assert before < cap
        await asyncio.to_thread(server.process.wait)
        server.start()
        answers = await ask(
            server.address, made.token, name=made.id, count=cap, connections=CONNECTIONS
        )
        assert answers["lost"] == 0
        assert before + answers["200"] == upstream.counts[made.id]
        assert cap - CONNECTIONS <= upstream.counts[made.id] <= cap
        with server.manage() as client:
            eventually(lambda: client.get_token(made.id).request_count == cap)
    finally:
        upstream.on_arrival = lambda name: None
        server.destroy()


def _is_replaced(server: ServerProcess, pid: int) -> bool:
    return pid not in server.worker_pids and len(server.worker_pids) == 2


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 60)),
        st.tuples(st.just("kill"), st.integers(0, 1)),
        st.tuples(st.just("cap"), st.integers(1, 120)),
        st.tuples(st.just("revoke"), st.just(0)),
        st.tuples(st.just("activate"), st.just(0)),
    ),
    min_size=1,
    max_size=8,
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS, cap=st.integers(1, 100))
async def test_forwarded_is_the_cap_or_the_demand_in_any_order_of_events(
    steps: list[tuple[str, int]],
    cap: int,
    pair: ServerProcess,
    manage: ManagementClient,
    project_id: str,
    upstream: CountingUpstream,
) -> None:
    made = capped(manage, project_id, cap)
    lost = 0  # in flight when a worker was killed: these may have been charged for nothing
    is_active = True
    for step, number in steps:
        before = upstream.counts[made.id]
        match step:
            case "ask":
                answers = await ask(
                    pair.address, made.token, name=made.id, count=number, connections=8
                )
                lost += answers["lost"]
                forwarded = upstream.counts[made.id]
                assert forwarded <= max(cap, before)
                wanted = min(number, max(0, cap - before)) if is_active else 0
                assert forwarded - before <= wanted
                assert forwarded - before >= wanted - lost
            case "kill":
                victim = pair.worker_pids[number]
                os.kill(victim, signal.SIGKILL)
                eventually(partial(_is_replaced, pair, victim))
            case "cap":
                cap = number
                manage.update_token(made.id, {"max_requests": cap})
            case "revoke" | "activate":
                is_active = step == "activate"
                manage.update_token(made.id, {"is_active": is_active})
    manage.update_token(made.id, {"is_active": True})
    total = upstream.counts[made.id]
    answers = await ask(pair.address, made.token, name=made.id, count=150, connections=8)
    lost += answers["lost"]
    assert max(cap, total) - lost <= upstream.counts[made.id] <= max(cap, total)
    eventually(lambda: manage.get_token(made.id).request_count >= upstream.counts[made.id])
    assert manage.get_token(made.id).request_count <= upstream.counts[made.id] + lost
