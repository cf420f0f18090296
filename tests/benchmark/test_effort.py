from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from time import monotonic

import pytest

from llm_proxy.benchmark.effort import Effort, waited_for_core_s

pytestmark = pytest.mark.anyio


async def test_what_happens_after_the_load_is_no_effort() -> None:
    sent = 3
    began = monotonic()
    effort = Effort(0.01, lambda: sent)
    await asyncio.sleep(0.05)
    sent = 99
    time.sleep(0.06)
    effort.end()
    assert effort.sent == 3
    assert 0 < effort.wall_s <= monotonic() - began - 0.06
    assert effort.cpu_s >= 0


async def test_a_load_without_a_length_ends_when_it_is_told_to(tmp_path: Path) -> None:
    scheduling = tmp_path / "schedstat"
    scheduling.write_text("5000000000 1500000000 17\n")
    effort = Effort(None, lambda: 7, scheduling=scheduling)
    await asyncio.sleep(0)
    scheduling.write_text("6000000000 1750000000 20\n")
    effort.end()
    wall_s = effort.wall_s
    scheduling.write_text("7000000000 9000000000 30\n")
    effort.end()
    assert (effort.waited_s, effort.sent) == (0.25, 7)
    assert effort.wall_s == wall_s > 0


@pytest.mark.parametrize("text", ["", "12", "a b c"])
def test_systems_that_do_not_tell_of_waiting_count_none(tmp_path: Path, text: str) -> None:
    scheduling = tmp_path / "schedstat"
    scheduling.write_text(text)
    assert waited_for_core_s(scheduling) == 0.0
    assert waited_for_core_s(tmp_path / "missing") == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of it")
def test_waiting_for_a_core_never_falls() -> None:
    before = waited_for_core_s()
    assert waited_for_core_s() >= before >= 0.0
