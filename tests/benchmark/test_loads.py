from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llm_proxy.benchmark.loads import share
from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer
from llm_proxy.benchmark.plan import Closed, Open, Replay, Stage
from llm_proxy.benchmark.samples import CONNECT, OK
from tests.benchmark.generating import CHAT, generate, plan, target

pytestmark = pytest.mark.anyio


@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=50))
def test_shares_add_up_and_are_even(total: int, processes: int) -> None:
    shares = [share(total, process, processes) for process in range(processes)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


async def test_processes_divide_requests_and_connections_among_them(mock: MockServer) -> None:
    wanted = plan(Closed(concurrency=3, requests=11), target(mock.address))
    runs = await asyncio.gather(
        *(generate(wanted, process=number, processes=2) for number in range(2))
    )
    assert [len(run.column("lane")) for run in runs] == [6, 5]
    assert [run.figures.connects for run in runs] == [2, 1]


async def test_a_duration_ends_between_pairs(mock: MockServer) -> None:
    both = (target(mock.address), target(mock.address))
    run = await generate(plan(Closed(concurrency=2, duration_s=0.3), *both))
    lanes = Counter(run.column("lane"))
    assert lanes[0] == lanes[1] > 0


async def test_requests_end_a_load_before_its_duration_does(mock: MockServer) -> None:
    wanted = plan(Closed(concurrency=2, requests=7, duration_s=60), target(mock.address))
    assert len((await generate(wanted)).column("lane")) == 7


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=0.1)], indirect=True)
async def test_a_duration_ends_a_load_before_its_requests_do(mock: MockServer) -> None:
    wanted = plan(Closed(concurrency=2, requests=10_000, duration_s=0.15), target(mock.address))
    assert 2 <= len((await generate(wanted)).column("lane")) <= 4


async def test_a_refused_connection_is_not_asked_for_again_at_once() -> None:
    listener = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    listener.close()
    await listener.wait_closed()
    run = await generate(plan(Closed(concurrency=1, duration_s=0.25), target(f"{host}:{port}")))
    assert set(run.column("outcome")) == {CONNECT}
    assert 1 <= len(run.column("outcome")) <= 4


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=0.05)], indirect=True)
async def test_arrivals_wait_for_a_slot_and_their_latency_counts_from_when_they_were_due(
    mock: MockServer,
) -> None:
    load = Open(
        stages=(Stage(duration_s=0.1, rate=100),),
        start_rate=100,
        max_in_flight=2,
        arrivals="constant",
    )
    run = await generate(plan(load, target(mock.address)))
    assert run.column("outcome") == [OK] * 10
    assert run.figures.blocked >= 6
    # The tenth was due after 90 ms, and is sent when eight have had their turns, two at a time.
    assert max(run.column("late")) >= 1_000_000


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=30)], indirect=True)
async def test_arrivals_that_never_get_a_slot_are_unsent(mock: MockServer) -> None:
    load = Open(stages=(Stage(duration_s=0.1, rate=100),), start_rate=100, max_in_flight=1)
    run = await generate(plan(load, target(mock.address), timeout_s=0.2))
    assert len(run.column("outcome")) + run.figures.unsent == 10
    assert run.figures.unsent > 0


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=30)], indirect=True)
async def test_unsent_arrivals_of_both_lanes_are_counted_once_each(mock: MockServer) -> None:
    load = Open(stages=(Stage(duration_s=0.1, rate=100),), start_rate=100, max_in_flight=3)
    both = (target(mock.address), target(mock.address))
    run = await generate(plan(load, *both, timeout_s=0.2))
    assert len(run.column("lane")) + run.figures.unsent == 2 * 10
    assert 0 < run.figures.sent <= run.figures.due <= 2 * 10


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=30)], indirect=True)
async def test_arrivals_beyond_counting_take_no_time(mock: MockServer) -> None:
    load = Open(stages=(Stage(duration_s=0.2, rate=1e6),), start_rate=1e6, max_in_flight=1)
    run = await generate(plan(load, target(mock.address), timeout_s=0.1))
    assert len(run.column("lane")) + run.figures.unsent == 200_000
    assert 150_000 < run.figures.due <= 200_000  # timers of a busy loop ring a little early


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=0.9)], indirect=True)
async def test_a_warm_up_sends_nothing_more_when_its_time_is_up(mock: MockServer) -> None:
    load = Open(stages=(Stage(duration_s=0.5, rate=20),), start_rate=20, max_in_flight=2)
    wanted = replace(plan(load, target(mock.address)), sends_late=False)
    run = await generate(wanted)
    assert run.column("outcome") == [OK] * 2
    assert run.figures.unsent == 8


async def test_a_replay_sends_its_bodies_when_they_are_due(mock: MockServer) -> None:
    other = CHAT.replace(b"Hello", b"Good evening")
    load = Replay(offsets_s=(0, 0.01, 0.01, 0.05), bodies=(1, 0, 1, 0))
    run = await generate(plan(load, target(mock.address), bodies=(CHAT, other)))
    assert run.column("outcome") == [OK] * 4
    sent = sorted(zip(run.column("due"), run.column("body"), strict=True))
    assert sent == [(0, 1), (100_000, 0), (100_000, 1), (500_000, 0)]


async def test_a_paired_replay_asks_both_sides_the_same(mock: MockServer) -> None:
    load = Replay(offsets_s=(0, 0.01, 0.02), bodies=(0, 1, 0))
    both = (target(mock.address), target(mock.address))
    run = await generate(plan(load, *both, bodies=(CHAT, CHAT + b" ")))
    asked = Counter(zip(run.column("lane"), run.column("body"), strict=True))
    assert asked == {(lane, body): 2 - body for lane in (0, 1) for body in (0, 1)}
