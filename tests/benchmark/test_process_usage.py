from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from llm_proxy.benchmark.process_usage import RECOVERY_S, UsageWatch, process_errors
from llm_proxy.benchmark.report import ProcessUsage
from llm_proxy.errors import ConfigError

# Does as it is told, a line each: burns CPU, takes memory, has a child do so, and says when it has.
_PROGRAM = """
import os, subprocess, sys, time
kept = []
def burn():
    end = time.process_time() + 0.06
    while time.process_time() < end: pass
for line in sys.stdin:
    match line.strip():
        case "burn": burn()
        case "take": kept.append(b"x" * 30_000_000)
        case "give back": kept.clear()
        case "bear":
            child = subprocess.Popen([sys.executable, "-S", "-c", sys.argv[1], sys.argv[1]],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        case "lose": child.stdin.close(); child.wait()
        case order:
            child.stdin.write(order.removeprefix("child ") + "\\n"); child.stdin.flush()
            child.stdout.readline()
    print("done", flush=True)
"""


class _Target:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def _running() -> Iterator[_Target]:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", _PROGRAM, _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        target = _Target(process)
        try:
            yield target
        finally:
            process.kill()


@pytest.fixture
def target() -> Iterator[_Target]:
    with _running() as target:
        yield target


def test_the_cpu_of_the_run_is_shared_by_its_requests(target: _Target) -> None:
    target.tell("burn")
    watch = UsageWatch(target.pid)
    watch.start()
    target.tell("burn")
    usage = watch.finish(1000)
    # The kernel counts in steps of 10 ms.
    assert 0.05 <= usage.cpu_s < 0.115
    assert usage.cpu_us_per_request == pytest.approx(usage.cpu_s * 1000, abs=5)
    assert usage.pids == (target.pid,)
    assert usage.core_hours_per_million == pytest.approx(usage.cpu_s * 1000 / 3600, abs=0.0014)


def test_without_requests_there_is_no_cpu_per_request(target: _Target) -> None:
    watch = UsageWatch(target.pid)
    watch.start()
    usage = watch.finish(0)
    assert (usage.cpu_us_per_request, usage.core_hours_per_million) == (0, None)


@pytest.mark.parametrize("has_pss", [True, False])
def test_memory_before_at_its_peak_and_after(
    target: _Target, has_pss: bool, tmp_path: Path
) -> None:
    watch = UsageWatch(target.pid) if has_pss else UsageWatch(target.pid, proc=tmp_path)
    watch.start()
    target.tell("take")
    watch.look_around()
    target.tell("give back")
    usage = watch.finish(1)
    assert usage.memory_before_mib > 1
    assert usage.memory_peak_mib > usage.memory_before_mib + 25
    assert usage.memory_after_mib < usage.memory_peak_mib - 25
    assert usage.memory_kind == ("pss" if has_pss and sys.platform == "linux" else "rss")


def test_memory_that_is_only_there_at_the_end_is_the_peak_too(target: _Target) -> None:
    watch = UsageWatch(target.pid)
    watch.start()
    target.tell("take")
    usage = watch.finish(1)
    assert usage.memory_peak_mib == usage.memory_after_mib > usage.memory_before_mib + 25


@pytest.mark.parametrize(("after_s", "is_measured"), [(0.9, False), (1.0, True)])
def test_memory_is_measured_once_a_second(
    target: _Target, after_s: float, is_measured: bool
) -> None:
    now = [100.0]
    watch = UsageWatch(target.pid, clock=lambda: now[0])
    watch.start()
    target.tell("take")
    now[0] += after_s
    watch.sample()
    target.tell("give back")
    assert (watch.finish(1).memory_peak_mib > 25) is is_measured


def _rested(target: _Target, now: list[float], *, length_s: float, rest_s: float) -> ProcessUsage:
    """A run that takes memory, and a rest in which it is given back."""
    watch = UsageWatch(target.pid, clock=lambda: now[0])
    watch.start()
    target.tell("take")
    while length_s > 0:
        now[0] += 1
        length_s -= 1
        watch.sample()
    assert watch.end() == (RECOVERY_S if now[0] >= 20 else 0)
    target.tell("give back")
    now[0] += rest_s
    return watch.finish(1000)


def test_a_long_run_shows_the_steady_memory_and_what_came_back(target: _Target) -> None:
    usage = _rested(target, [0.0], length_s=60, rest_s=RECOVERY_S)
    # Shared pages count less or more as other processes come and go.
    assert usage.memory_steady_mib == pytest.approx(usage.memory_after_mib, abs=2)
    assert usage.memory_peak_mib == pytest.approx(usage.memory_after_mib, abs=2)
    assert usage.memory_growth_mib_per_min == pytest.approx(0, abs=2)
    assert usage.memory_recovered_mib is not None
    assert usage.memory_recovered_mib < usage.memory_after_mib - 25


def test_a_rest_that_was_cut_short_tells_nothing_of_what_came_back(target: _Target) -> None:
    usage = _rested(target, [0.0], length_s=20, rest_s=1.0)
    assert usage.memory_recovered_mib is None
    assert usage.memory_steady_mib is not None
    assert usage.memory_growth_mib_per_min is None  # by the minute, of less than one


def test_a_short_run_has_no_trend_and_no_rest(target: _Target) -> None:
    usage = _rested(target, [0.0], length_s=10, rest_s=60.0)
    assert usage.memory_growth_mib_per_min is usage.memory_recovered_mib is None
    assert usage.memory_steady_mib is None


def test_what_the_target_does_after_the_end_is_not_of_the_run(target: _Target) -> None:
    watch = UsageWatch(target.pid)
    watch.start()
    watch.end()
    target.tell("burn")
    assert watch.finish(1).cpu_s < 0.05


def test_children_count_those_born_during_the_run_from_their_birth(target: _Target) -> None:
    target.tell("bear")
    target.tell("child burn")
    watch = UsageWatch(target.pid)
    watch.start()
    target.tell("child bear")
    target.tell("child child burn")
    usage = watch.finish(1)
    assert len(usage.pids) == 3
    assert 0.05 <= usage.cpu_s < 0.2


def test_of_children_that_ended_counts_what_was_last_seen(target: _Target) -> None:
    target.tell("bear")
    watch = UsageWatch(target.pid)
    watch.start()
    target.tell("child burn")
    watch.sample()
    target.tell("lose")
    usage = watch.finish(1)
    assert len(usage.pids) == 2
    assert usage.cpu_s >= 0.05


def test_a_target_that_dies_during_the_run_leaves_what_was_seen(target: _Target) -> None:
    watch = UsageWatch(target.pid)
    watch.start()
    target.tell("burn")
    watch.sample()
    target.end()
    watch.sample()
    usage = watch.finish(1)
    assert usage.cpu_s >= 0.05
    assert usage.memory_before_mib > 0
    assert usage.memory_after_mib == 0


@pytest.mark.parametrize("pid", [2**22 + 5, -1, 2**80])
def test_a_pid_of_no_process_is_refused(pid: int) -> None:
    with pytest.raises(ConfigError, match=f"--pid {pid}: no such process; give the id"):
        UsageWatch(pid)


def test_each_run_counts_for_itself_and_one_without_the_target_is_empty(target: _Target) -> None:
    watch = UsageWatch(target.pid)
    watch.start()
    target.tell("burn")
    watch.finish(1)
    watch.start()
    assert watch.finish(1).cpu_s < 0.05
    target.end()
    watch.start()
    usage = watch.finish(1)
    assert (usage.cpu_s, usage.memory_before_mib, usage.memory_peak_mib) == (0, 0, 0)


def test_a_process_that_may_not_be_looked_at_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="--pid 7: the process belongs to another user; run"),
        process_errors(7),
    ):
        raise psutil.AccessDenied(7)
