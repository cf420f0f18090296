from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from llm_proxy.measurements import Series, Snapshot
from llm_proxy.server.process_usage import measure_processes


def gauges(snapshot: Snapshot) -> dict[tuple[str, ...], int | float]:
    return {(series.name, *series.labels): series.value for series in snapshot.gauges}


def fake_process(proc: Path, pid: int, *, pages: int, descriptors: int) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "statm").write_text(f"1000 {pages} 10 1 0 5 0\n")
    for number in range(descriptors):
        (proc / str(pid) / "fd" / str(number)).touch()


def test_processes_of_a_kind_are_added_up(tmp_path: Path) -> None:
    fake_process(tmp_path, 7, pages=10, descriptors=3)
    fake_process(tmp_path, 8, pages=20, descriptors=4)
    found = gauges(measure_processes({"worker": [7, 8], "writer": []}, proc=tmp_path))
    page = os.sysconf("SC_PAGE_SIZE")
    assert found == {
        ("process_resident_memory_bytes", "worker"): 30 * page,
        ("process_open_fds", "worker"): 7,
    }


def test_a_process_that_is_gone_is_left_out(tmp_path: Path) -> None:
    fake_process(tmp_path, 7, pages=10, descriptors=3)
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "statm").write_text("")
    found = gauges(measure_processes({"worker": [7, 8, 9]}, proc=tmp_path))
    assert found["process_open_fds", "worker"] == 3


def test_where_there_is_no_proc_only_cpu_time_is_told(tmp_path: Path) -> None:
    found = measure_processes({"supervisor": [os.getpid()]}, proc=tmp_path / "none")
    assert found.gauges == ()
    assert [series.name for series in found.counters] == ["process_cpu_seconds"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_this_process_uses_something() -> None:
    found = measure_processes({"supervisor": [os.getpid()]})
    assert all(series.value > 0 for series in (*found.counters, *found.gauges))
    assert Series("process_cpu_seconds", ("supervisor",), found.counters[0].value) in found.counters
    assert len(found.gauges) == 2
