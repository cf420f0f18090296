"""What a process and its descendants use of this machine while a benchmark runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from llm_proxy.benchmark.memory_trend import LEAST_S, MemoryTrend
from llm_proxy.benchmark.precision import rounded
from llm_proxy.benchmark.report import ProcessUsage
from llm_proxy.errors import ConfigError

if TYPE_CHECKING:
    import psutil

_PROC: Final = Path("/proc")
_MIB: Final = 1024 * 1024
# Looking for descendants and measuring memory takes the kernel milliseconds: so not each time.
_LOOK_AROUND_S: Final = 1.0
RECOVERY_S: Final = 3.0  # what has to be given back is, by then


class _Member:
    """A process of the family; what was last seen of it stays when it has ended."""

    __slots__ = ("cpu_before_s", "cpu_s", "process")

    def __init__(self, process: psutil.Process, cpu_before_s: float) -> None:
        self.process = process
        self.cpu_before_s = cpu_before_s
        self.cpu_s = cpu_before_s


class UsageWatch:
    """`start()`, then `sample()` a few times a second, then `end()` and `finish()`.

    Making it raises ConfigError when there is no such process, or it can't be looked at.
    """

    def __init__(
        self, pid: int, *, proc: Path = _PROC, clock: Callable[[], float] = time.monotonic
    ) -> None:
        import psutil

        self._proc = proc
        self._clock = clock
        self._members: dict[psutil.Process, _Member] = {}
        self._looked_at = 0.0
        self._before = self._peak = self._after = 0
        self._started_at = 0.0
        self._ended_at: float | None = None
        self._trend = MemoryTrend()
        with process_errors(pid):
            self._root = psutil.Process(pid)
            self._root.cpu_times()
            self._root.memory_info()
        self._kind: Literal["pss", "rss"] = "rss" if _pss(proc, pid) is None else "pss"

    def start(self) -> None:
        """Again for another run; a target that has gone since uses nothing."""
        family = [self._root, *_descendants(self._root)]
        self._members = {process: _Member(process, _cpu_s(process) or 0.0) for process in family}
        self._before = self._peak = self._memory()
        self._started_at = self._looked_at = self._clock()
        self._ended_at = None
        self._trend = MemoryTrend()
        self._trend.note(self._started_at, self._before)

    def sample(self) -> None:
        if self._clock() - self._looked_at >= _LOOK_AROUND_S:
            self.look_around()
        self._note_cpu()

    def end(self) -> float:
        """The load is over. How long to leave the target alone before `finish`, to see what memory
        it gives back: no time after a short run."""
        self._after = self.look_around()
        self._note_cpu()
        self._ended_at = self._looked_at
        return RECOVERY_S if self._ended_at - self._started_at >= LEAST_S else 0.0

    def finish(self, requests: int) -> ProcessUsage:
        if self._ended_at is None:
            self.end()
        recovered = self._recovered()
        steady, growth = self._trend.steady_mib(), self._trend.growth_mib_per_min()
        cpu_s = sum(member.cpu_s - member.cpu_before_s for member in self._members.values())
        return ProcessUsage(
            pids=tuple(sorted({process.pid for process in self._members})),
            cpu_s=round(cpu_s, 2),  # the kernel counts in steps of 10 ms
            cpu_us_per_request=round(cpu_s * 1e6 / requests, 1) if requests else 0.0,
            memory_before_mib=round(self._before / _MIB, 1),
            memory_peak_mib=round(self._peak / _MIB, 1),
            memory_after_mib=round(self._after / _MIB, 1),
            memory_kind=self._kind,
            core_hours_per_million=_core_hours_per_million(cpu_s, requests),
            memory_steady_mib=None if steady is None else round(steady, 1),
            memory_growth_mib_per_min=None if growth is None else round(growth, 2),
            memory_recovered_mib=None if recovered is None else round(recovered / _MIB, 1),
        )

    def _recovered(self) -> int | None:
        """None unless it was left alone for as long as `end` said."""
        assert self._ended_at is not None
        is_rested = self._clock() - self._ended_at >= RECOVERY_S
        is_long = self._ended_at - self._started_at >= LEAST_S
        return self._memory() if is_rested and is_long else None

    def look_around(self) -> int:
        """Takes in children born since, and gives the family's memory."""
        for process in _descendants(self._root):
            if process not in self._members:
                self._members[process] = _Member(process, 0.0)
        memory = self._memory()
        self._peak = max(self._peak, memory)
        self._looked_at = self._clock()
        self._trend.note(self._looked_at, memory)
        return memory

    def _note_cpu(self) -> None:
        for member in self._members.values():
            seen = _cpu_s(member.process)
            if seen is not None:
                member.cpu_s = seen

    def _memory(self) -> int:
        """Bytes."""
        return sum(self._memory_of(process) for process in self._members)

    def _memory_of(self, process: psutil.Process) -> int:
        pss = _pss(self._proc, process.pid) if self._kind == "pss" else None
        return _rss(process) if pss is None else pss


def _core_hours_per_million(cpu_s: float, requests: int) -> float | None:
    return rounded(cpu_s / requests * 1e6 / 3600) if requests else None


@contextmanager
def process_errors(pid: int) -> Iterator[None]:
    """psutil's, as ours."""
    import psutil

    try:
        yield
    except psutil.AccessDenied as exc:
        raise ConfigError(
            f"--pid {pid}: the process belongs to another user; run the benchmark as that user, "
            "or leave --pid out"
        ) from exc
    except (psutil.NoSuchProcess, ValueError, OverflowError) as exc:
        raise ConfigError(
            f"--pid {pid}: no such process; give the id of the target's main process"
        ) from exc


def _descendants(root: psutil.Process) -> list[psutil.Process]:
    import psutil

    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []


def _cpu_s(process: psutil.Process) -> float | None:
    """Of itself, without children; None when it has ended."""
    import psutil

    try:
        times = process.cpu_times()
    except psutil.Error:
        return None
    return times.user + times.system


def _rss(process: psutil.Process) -> int:
    import psutil

    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _pss(proc: Path, pid: int) -> int | None:
    """Bytes, each page shared with others counted in proportion. None where it can't be had."""
    try:
        lines = (proc / str(pid) / "smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration, IndexError, ValueError):
        return None
