from __future__ import annotations

import asyncio
import time
from array import array

import pytest

from llm_proxy.benchmark.loop_lag import LoopLag, percentile

pytestmark = pytest.mark.anyio


async def test_a_loop_that_is_kept_busy_is_seen_to_lag() -> None:
    lag = LoopLag()
    await asyncio.sleep(0.02)
    time.sleep(0.1)
    await asyncio.sleep(0.02)
    lag.close()
    assert lag.percentile_ms(1.0) >= 80
    assert lag.percentile_ms(0.0) <= lag.percentile_ms(0.5) <= lag.percentile_ms(1.0)


def test_percentile_of_few_and_of_none() -> None:
    assert percentile(array("q"), 0.5) == 0
    assert percentile(array("q", [3, 1, 2]), 0.5) == 2
    assert percentile(array("q", [3, 1, 2]), 1.0) == 3
