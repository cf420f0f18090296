"""The load generator of one process: one run after the other, with connections kept in between."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Final
from urllib.parse import urlsplit

from llm_proxy.benchmark.call import CallBook, Lane
from llm_proxy.benchmark.effort import Effort
from llm_proxy.benchmark.loads import ClosedLoad, OpenLoad, Running, Task, share
from llm_proxy.benchmark.loop_lag import percentile
from llm_proxy.benchmark.notebook import Notebook
from llm_proxy.benchmark.overdue import Overdue
from llm_proxy.benchmark.plan import Closed, Plan, Target
from llm_proxy.benchmark.request_bytes import RequestBytes
from llm_proxy.benchmark.samples import Frame, RigFigures
from llm_proxy.benchmark.schedule import due_between
from llm_proxy.errors import ConfigError
from llm_proxy.http1.origin import Origin
from llm_proxy.http1.pool import Pool
from llm_proxy.http1.timers import Timers
from llm_proxy.http1.tls import client_context
from llm_proxy.providers import Connection, Timeouts

_FRAME_EVERY_S: Final = 0.1
_LONGEST_GRACE_S: Final = 30.0  # for what is under way when the time is up
_STOP_GRACE_S: Final = 0.5  # … when the run is broken off
_CONNECTIONS: Final = Connection(max_idle_conns=100_000, idle_timeout=90.0)
_OTHER_FILES: Final = 32  # that a process has open, with some to spare
_PORTS: Final = {"http": 80, "https": 443}


class Generator:
    def __init__(self, *, process: int, processes: int) -> None:
        self._process = process
        self._processes = processes
        self._timers = Timers(asyncio.get_running_loop())
        self._pools: dict[tuple[str, str | None, float], Pool] = {}
        self._plan: Plan | None = None
        self._stop = asyncio.Event()

    def prepare(self, plan: Plan) -> None:
        """Everything that needn't happen while the clock runs. Raises ConfigError."""
        self._refuse_more_than_files(plan)
        self._plan = plan
        self._stop.clear()
        self._lanes = [
            Lane(
                index=i, pool=self._pool(target, plan), requests=RequestBytes(target, plan.workload)
            )
            for i, target in enumerate(plan.targets)
        ]

    def _refuse_more_than_files(self, plan: Plan) -> None:
        """Else we would fail, and the target be blamed."""
        if not isinstance(plan.load, Closed):
            return
        wanted = share(plan.load.concurrency, self._process, self._processes) * len(plan.targets)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most != resource.RLIM_INFINITY and wanted + _OTHER_FILES > most:
            raise ConfigError(
                f"--concurrency {plan.load.concurrency} needs {wanted} connections in a generator "
                f"process, which may open {most} files; raise that (ulimit -n), lower the "
                "concurrency, or use more --processes"
            )

    def _pool(self, target: Target, plan: Plan) -> Pool:
        key = (target.base_url, target.ca_file, plan.timeout_s)
        if key not in self._pools:
            wait = plan.timeout_s
            timeouts = Timeouts(connect=wait, response_header=wait, idle=wait)
            self._pools[key] = Pool(
                _origin(target), self._timers, timeouts=timeouts, limits=_CONNECTIONS
            )
        return self._pools[key]

    def stop(self) -> None:
        """Ends the run that is under way early."""
        self._stop.set()

    async def run(self, at_ns: int, on_frame: Callable[[Frame], None]) -> RigFigures:
        """The prepared run, which begins at `at_ns` of `monotonic_ns`."""
        plan = self._plan
        assert plan is not None
        book = CallBook(
            notebook=Notebook(self._process),
            method=plan.workload.method.encode(),
            started_ns=at_ns,
            makes_digests=plan.is_paired and plan.workload.checks_fidelity,
        )
        over = asyncio.Event()
        load = self._load(plan, book, over.set)
        await asyncio.sleep(max(0.0, (at_ns - monotonic_ns()) / 1e9))
        effort = Effort(plan.load.duration_s, lambda: load.sent)
        connects = self._connects()
        overdue = Overdue(load, plan.max_time_s)
        self._timers.watch(overdue)
        frames = asyncio.create_task(_send_frames(book, load, on_frame))
        try:
            load.start(at_ns)
            await self._until_over(plan, load, over)
        finally:
            self._timers.forget(overdue)
            frames.cancel()
            await asyncio.gather(frames, return_exceptions=True)
            effort.end()
        _send_frame(book, load, on_frame)
        return self._figures(plan, load, effort, reconnects=book.reconnects, connects=connects)

    def _figures(
        self, plan: Plan, load: Running, effort: Effort, *, reconnects: int, connects: int
    ) -> RigFigures:
        """`connects` of the runs before."""
        lag = effort.lag
        return RigFigures(
            process=self._process,
            cpu_s=effort.cpu_s,
            wall_s=effort.wall_s,
            waited_s=effort.waited_s,
            lag_ticks=lag.count,
            lag_p50_ms=lag.percentile_ms(0.5),
            lag_p99_ms=lag.percentile_ms(0.99),
            lag_max_ms=lag.percentile_ms(1.0),
            reconnects=reconnects,
            connects=self._connects() - connects,
            due=self._due(plan, effort.wall_s),
            sent=effort.sent,
            unsent=load.unsent,
            blocked=load.blocked,
            late_p99_ms=percentile(load.late, 0.99) / 1e6,
        )

    def _due(self, plan: Plan, until_s: float) -> int:
        if isinstance(plan.load, Closed):
            return 0
        lanes = len(plan.targets)
        return due_between(plan.load, 0.0, until_s, processes=self._processes, lanes=lanes)

    def _load(self, plan: Plan, book: CallBook, ended: Callable[[], None]) -> Running:
        task = Task(
            plan=plan,
            lanes=self._lanes,
            book=book,
            ended=ended,
            process=self._process,
            processes=self._processes,
        )
        if isinstance(plan.load, Closed):
            return ClosedLoad(plan.load, task)
        return OpenLoad(plan.load, task)

    async def _until_over(self, plan: Plan, load: Running, over: asyncio.Event) -> None:
        """Until the last answer; what isn't there a while after the end is given up."""
        stopped = asyncio.create_task(self._stop.wait())
        ended = asyncio.create_task(over.wait())
        try:
            grace_s = min(plan.timeout_s, _LONGEST_GRACE_S)
            limit_s = plan.load.duration_s
            if limit_s is not None and not plan.sends_late:
                await _first_of(stopped, ended, within_s=limit_s)
                load.stop()
                limit_s = 0.0
            await _first_of(stopped, ended, within_s=None if limit_s is None else limit_s + grace_s)
            load.stop()
            if self._stop.is_set():
                await asyncio.wait((ended,), timeout=_STOP_GRACE_S)
            for call in tuple(load.active):
                call.give_up(is_stopped=self._stop.is_set())
        finally:
            stopped.cancel()
            ended.cancel()
            await asyncio.gather(stopped, ended, return_exceptions=True)

    def _connects(self) -> int:
        return sum(pool.connects for pool in self._pools.values())

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()
        self._timers.close()


async def _first_of(*tasks: asyncio.Task[Any], within_s: float | None) -> None:
    await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)


async def _send_frames(book: CallBook, load: Running, on_frame: Callable[[Frame], None]) -> None:
    while True:
        await asyncio.sleep(_FRAME_EVERY_S)
        _send_frame(book, load, on_frame)


def _send_frame(book: CallBook, load: Running, on_frame: Callable[[Frame], None]) -> None:
    at = (monotonic_ns() - book.started_ns) // 100
    on_frame(book.notebook.take(at, len(load.active)))


def _origin(target: Target) -> Origin:
    url = urlsplit(target.base_url)
    assert url.hostname is not None
    return Origin(
        host=url.hostname,
        port=url.port or _PORTS[url.scheme],
        tls=client_context(target.ca_file) if url.scheme == "https" else None,
    )


def tune_process() -> None:
    """Room for many connections, and no garbage collection in the middle of a measurement."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
