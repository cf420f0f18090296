"""What processes of the server use of the machine, as its kernel tells."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm_proxy.measurements import Series, Snapshot

_PROC = Path("/proc")


def measure_processes(kinds: Mapping[str, Sequence[int]], *, proc: Path = _PROC) -> Snapshot:
    """Sums over the pids of each kind; where there is no /proc, only what we know ourselves."""
    gauges = []
    for kind, pids in kinds.items():
        sizes = [size for pid in pids if (size := _resident_bytes(proc, pid)) is not None]
        descriptors = [n for pid in pids if (n := _open_descriptors(proc, pid)) is not None]
        if sizes:
            gauges.append(Series("process_resident_memory_bytes", (kind,), sum(sizes)))
        if descriptors:
            gauges.append(Series("process_open_fds", (kind,), sum(descriptors)))
    cpu = Series("process_cpu_seconds", ("supervisor",), time.process_time())
    return Snapshot(counters=(cpu,), gauges=tuple(gauges))


def _resident_bytes(proc: Path, pid: int) -> int | None:
    try:
        pages = (proc / str(pid) / "statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def _open_descriptors(proc: Path, pid: int) -> int | None:
    try:
        return len(os.listdir(proc / str(pid) / "fd"))  # noqa: PTH208 - no Path for each of them
    except OSError:
        return None
