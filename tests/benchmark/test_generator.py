from __future__ import annotations

import asyncio
import resource
from collections import Counter
from time import monotonic_ns

import msgspec
import pytest

from llm_proxy.benchmark.generator import Generator
from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer
from llm_proxy.benchmark.plan import Closed, Open, Stage
from llm_proxy.benchmark.rig_verdict import rig_verdict
from llm_proxy.benchmark.samples import CANCELLED, OK, TIMEOUT, Frame
from llm_proxy.errors import ConfigError
from tests.benchmark.generating import CHAT, STREAM, generate, generate_with, plan, target

pytestmark = pytest.mark.anyio

MOST_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


async def test_sends_as_many_requests_as_asked_for(mock: MockServer) -> None:
    run = await generate(plan(Closed(concurrency=4, requests=50), target(mock.address)))
    assert run.column("outcome") == [OK] * 50
    assert run.column("status") == [200] * 50
    assert run.figures.connects == 4
    assert len(mock.requests) == 50
    assert run.figures.wall_s > 0 and run.figures.cpu_s > 0
    assert set(run.column("sent")) == {len(_head(mock)) + len(CHAT)}


def _head(mock: MockServer) -> bytes:
    from llm_proxy.benchmark.plan import Workload
    from llm_proxy.benchmark.request_bytes import RequestBytes

    request = RequestBytes(target(mock.address), Workload(bodies=(CHAT,))).request(0, 0)
    return request.removesuffix(CHAT)


async def test_connections_are_kept_for_the_next_run(mock: MockServer) -> None:
    generator = Generator(process=0, processes=1)
    wanted = plan(Closed(concurrency=2, requests=10), target(mock.address))
    await generate_with(generator, wanted)
    assert (await generate_with(generator, wanted)).figures.connects == 0
    await generator.close()


async def test_two_targets_are_paired(mock: MockServer) -> None:
    both = (target(mock.address), target(mock.address))
    run = await generate(plan(Closed(concurrency=3, requests=30), *both))
    lanes: dict[int, list[int]] = {}
    for pair, lane in zip(run.column("pair"), run.column("lane"), strict=True):
        lanes.setdefault(pair, []).append(lane)
    assert len(lanes) == 30
    assert all(sorted(found) == [0, 1] for found in lanes.values())
    digests = set(run.column("digest"))
    assert len(digests) == 1 and digests != {0}


async def test_an_open_load_sends_what_is_due(mock: MockServer) -> None:
    load = Open(stages=(Stage(duration_s=0.2, rate=200),), start_rate=200)
    run = await generate(plan(load, target(mock.address)))
    assert run.column("outcome") == [OK] * 40
    assert sorted(run.column("due")) == [number * 50_000 for number in range(40)]
    assert all(late >= 0 for late in run.column("late"))
    assert run.figures.blocked == run.figures.unsent == 0


async def test_what_has_no_answer_when_the_time_is_up_has_timed_out(mock: MockServer) -> None:
    load = Closed(concurrency=2, duration_s=0.1)
    slow = (("X-Mock-Delay", "30s"),)
    wanted = plan(load, target(mock.address), headers=slow, timeout_s=0.2)
    run = await generate(wanted)
    assert Counter(run.column("outcome")) == {TIMEOUT: 2}


async def test_stopping_ends_a_run_early_and_what_was_under_way_is_no_error(
    mock: MockServer,
) -> None:
    generator = Generator(process=0, processes=1)
    frames: list[Frame] = []
    generator.prepare(
        plan(
            Closed(concurrency=2, duration_s=60),
            target(mock.address),
            headers=(("X-Mock-Delay", "30s"),),
            timeout_s=60,
        )
    )
    running = asyncio.create_task(generator.run(monotonic_ns(), frames.append))
    while len(mock.requests) < 2:
        await asyncio.sleep(0.005)
    generator.stop()
    async with asyncio.timeout(10):
        await running
    await generator.close()
    outcomes = [outcome for frame in frames for outcome in frame.samples.outcome]
    assert outcomes == [CANCELLED] * 2


async def test_a_missing_ca_file_is_told_before_the_run() -> None:
    generator = Generator(process=0, processes=1)
    bad = target("127.0.0.1:1")
    tls = msgspec.structs.replace(bad, base_url="https://127.0.0.1:1", ca_file="/no/such.pem")
    with pytest.raises(ConfigError, match="ca_file"):
        generator.prepare(plan(Closed(concurrency=1, requests=1), tls))
    await generator.close()


@pytest.mark.skipif(MOST_FILES == resource.RLIM_INFINITY, reason="no limit to files here")
async def test_more_connections_than_files_are_refused_before_the_run() -> None:
    many = MOST_FILES
    generator = Generator(process=0, processes=2)
    both = (target("127.0.0.1:1"), target("127.0.0.1:1"))
    try:
        with pytest.raises(ConfigError, match=rf"--concurrency {many} needs {many} .*ulimit -n"):
            generator.prepare(plan(Closed(concurrency=many, requests=1), *both))
    finally:
        await generator.close()


async def test_waiting_for_the_last_answer_is_no_work_of_the_rig(mock: MockServer) -> None:
    load = Closed(concurrency=1, duration_s=0.05)
    slow = (("X-Mock-Delay", "600ms"),)
    run = await generate(plan(load, target(mock.address), headers=slow))
    assert run.column("outcome") == [OK]
    assert run.column("service")[0] >= 6_000_000
    assert 0 < run.figures.wall_s < run.column("service")[0] / 1e7


async def test_a_rate_far_over_what_can_be_sent_is_bound_by_the_rig(mock: MockServer) -> None:
    # The mock shares our thread: whatever it needs, the process is never idle.
    load = Open(stages=(Stage(duration_s=0.2, rate=1e6),), start_rate=1e6, max_in_flight=1000)
    run = await generate(plan(load, target(mock.address), timeout_s=0.1))
    assert run.figures.blocked > 0 and run.figures.sent < 100_000
    assert rig_verdict([run.figures], latency_ms=None, late_ms=None).verdict == "rig-bound"


@pytest.mark.parametrize("mock_options", [MockOptions(tokens_per_second=20)], indirect=True)
async def test_an_answer_on_its_way_when_the_time_is_up_is_broken_off_without_being_an_error(
    mock: MockServer,
) -> None:
    load = Closed(concurrency=2, duration_s=0.1)
    endless = (("X-Mock-Tokens", "1000"),)
    wanted = plan(load, target(mock.address), bodies=(STREAM,), headers=endless, is_stream=True)
    run = await generate(msgspec.structs.replace(wanted, timeout_s=0.7))
    assert run.column("outcome") == [CANCELLED] * 2
