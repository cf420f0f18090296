from __future__ import annotations

import asyncio
import os
from itertools import count

import pytest

from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer
from llm_proxy.benchmark.mock_watch import MockWatch
from llm_proxy.benchmark.plan import Closed
from llm_proxy.secrets import Secret
from tests.benchmark.generating import STREAM, generate, plan, target

pytestmark = pytest.mark.anyio


def watch(mock: MockServer, key: str = "any-key", *, last_within_s: float = 30.0) -> MockWatch:
    seconds = count()
    return MockWatch(
        os.getpid(),
        f"http://{mock.address}",
        Secret(key),
        last_within_s=last_within_s,
        clock=lambda: float(next(seconds)),
    )


async def hang_up(mock: MockServer) -> None:
    wanted = plan(
        Closed(concurrency=2, requests=4),
        target(mock.address),
        bodies=(STREAM,),
        is_stream=True,
        cancel_rate=1.0,
    )
    await generate(wanted)


@pytest.mark.parametrize("mock_options", [MockOptions(tokens_per_second=200)], indirect=True)
async def test_every_hang_up_of_a_run_is_seen(mock: MockServer) -> None:
    watched = watch(mock)
    await hang_up(mock)
    await watched.start()
    await hang_up(mock)
    watched.sample()
    found = await watched.finish(4)
    assert found.hang_ups == 4
    assert found.cpu_share is not None and found.cpu_share >= 0


async def test_hang_ups_that_never_come_are_waited_for_a_little_only(mock: MockServer) -> None:
    watched = watch(mock, last_within_s=3.0)
    await watched.start()
    async with asyncio.timeout(30):
        assert (await watched.finish(1)).hang_ups == 0


async def test_those_with_another_key_do_not_count(mock: MockServer) -> None:
    watched = watch(mock, "another-key")
    await watched.start()
    await hang_up(mock)
    assert (await watched.finish(0)).hang_ups == 0


async def test_a_mock_that_cannot_be_asked_has_seen_nobody_knows_what(mock: MockServer) -> None:
    watched = watch(mock)
    await watched.start()
    await mock.close()
    assert (await watched.finish(1)).hang_ups is None


async def test_a_run_too_short_to_count_cpu_time_has_none(mock: MockServer) -> None:
    watched = MockWatch(
        os.getpid(),
        f"http://{mock.address}",
        Secret("k"),
        clock=iter((5.0, 5.4, 6.0, 7.0)).__next__,
    )
    await watched.start()
    assert (await watched.finish(0)).cpu_share is None
