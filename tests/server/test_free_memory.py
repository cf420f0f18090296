from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from llm_proxy.server.free_memory import INTERVAL_S, FreeMemory


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_gives_back_at_intervals() -> None:
    given: list[float] = []
    now = 100.0

    def trim(_: ctypes.c_size_t) -> int:
        given.append(now)
        return 1

    memory = FreeMemory(trim)
    for now in (100.0, 100.25, 100.0 + INTERVAL_S, 100.25 + INTERVAL_S):
        memory.check(now)

    assert given == [100.0, 100.0 + INTERVAL_S]


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="a C library without malloc_trim",
)
def test_free_memory_is_no_longer_resident() -> None:
    blocks = [bytearray(b"x") * 100_000 for _ in range(400)]  # 38 MiB, below the size of a mapping
    keeper = bytearray(b"x") * 100_000  # behind them: the heap can't just be cut there
    full = resident_pages()
    blocks.clear()

    FreeMemory().check(0.0)

    assert resident_pages() < full - 5_000
    assert keeper
