from __future__ import annotations

import msgspec
import pytest

from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer
from llm_proxy.benchmark.plan import Closed
from llm_proxy.benchmark.samples import OK, TIMEOUT
from tests.benchmark.generating import STREAM, generate, plan, target

pytestmark = pytest.mark.anyio

ENDLESS = (("X-Mock-Tokens", "1000000"),)


@pytest.mark.parametrize("mock_options", [MockOptions(tokens_per_second=100)], indirect=True)
async def test_streams_that_never_end_do_not_keep_a_run_from_its_end(mock: MockServer) -> None:
    load = Closed(concurrency=2, requests=2)
    wanted = plan(load, target(mock.address), bodies=(STREAM,), headers=ENDLESS, is_stream=True)
    run = await generate(msgspec.structs.replace(wanted, max_time_s=1.0))
    assert run.column("outcome") == [TIMEOUT] * 2
    assert min(run.column("service")) >= 10_000_000
    assert min(run.column("tokens")) > 0


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=0.4)], indirect=True)
async def test_answers_within_the_time_are_left_alone(mock: MockServer) -> None:
    wanted = plan(Closed(concurrency=1, requests=1), target(mock.address))
    run = await generate(msgspec.structs.replace(wanted, max_time_s=60.0))
    assert run.column("outcome") == [OK]
