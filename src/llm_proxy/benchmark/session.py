"""The phases of a benchmark on one rig: warm-up, then runs or the search for the highest rates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

import msgspec

from llm_proxy.benchmark.collector import Collector
from llm_proxy.benchmark.find_max import find_max
from llm_proxy.benchmark.frontier import frontier
from llm_proxy.benchmark.goodput import GoodputLimit
from llm_proxy.benchmark.live import Live
from llm_proxy.benchmark.mock_figures import NOT_WATCHED, MockFigures
from llm_proxy.benchmark.plan import Closed, Load, Open, Plan, Replay, Stage
from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.rate_search import RateSearch
from llm_proxy.benchmark.repeats import median_run, spread_of, summary
from llm_proxy.benchmark.report import FindMax, Frontier, Probe, ProcessUsage, Run, Spread
from llm_proxy.benchmark.results import Results
from llm_proxy.benchmark.samples import OUTCOMES, UNSENT, Frame, RigFigures
from llm_proxy.benchmark.service import Service
from llm_proxy.errors import ConfigError

SHOWN_EVERY_S: Final = 0.25


class Interrupted(Exception):
    """Somebody asked for the end before there was anything to report."""


class Generator(Protocol):
    """`Rig`, as far as a session knows it."""

    async def run(self, plan: Plan, on_frame: Callable[[Frame], None]) -> list[RigFigures]: ...

    def stop(self) -> None: ...


class View(Protocol):
    def phase(
        self, text: str, *, total_s: float | None = None, total_requests: int | None = None
    ) -> None: ...

    def update(self, live: Live) -> None: ...


class Usage(Protocol):
    """The target's CPU and memory, watched during one run."""

    def start(self) -> None: ...

    def sample(self) -> None: ...

    def end(self) -> float: ...

    def finish(self, requests: int) -> ProcessUsage | None: ...


class Mock(Protocol):
    """`MockWatch`, as far as a session knows it."""

    async def start(self) -> None: ...

    def sample(self) -> None: ...

    async def finish(self, hang_ups: int) -> MockFigures: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    warm_up_s: float = 0.0
    repeats: int = 1
    service: Service | None = None  # then the plan's load is that of one probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    results: Results
    last: Results  # … of the last run or probe, whichever stands for all
    process: ProcessUsage | None
    spread: dict[str, Spread]
    runs: tuple[Run, ...] = ()  # of several
    find_max: FindMax | None = None
    frontier: Frontier | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class _Measurement:
    results: Results
    process: ProcessUsage | None


class Session:
    def __init__(
        self,
        rig: Generator,
        view: View,
        *,
        usage: Usage | None = None,
        mock: Mock | None = None,
        on_frame: Callable[[Frame, int], None] | None = None,
        goodput: Sequence[GoodputLimit] = (),
    ) -> None:
        """`on_frame` gets what is measured, and in which run of it; not the warm-up."""
        self._rig = rig
        self._view = view
        self._usage = usage
        self._mock = mock
        self._on_frame = on_frame
        self._goodput = tuple(goodput)
        self._stopped = asyncio.Event()
        self._run = -1  # which one is measured

    def stop(self) -> None:
        """Ends the run under way and begins no other."""
        self._stopped.set()
        self._rig.stop()

    @property
    def _is_stopped(self) -> bool:
        return self._stopped.is_set()

    async def run(self, plan: Plan, course: Course) -> Measured:
        """Raises Interrupted when it was stopped before the first run."""
        await self._warm_up(plan, course.warm_up_s)
        if course.service is not None:
            return await self._search(plan, course.service)
        done = [await self._measure(plan, _title(1, course.repeats))]
        while (number := len(done)) < course.repeats and not self._is_over(done[-1]):
            # What is drawn by lot is drawn anew: its luck belongs to the spread.
            repeat = msgspec.structs.replace(plan, seed=plan.seed + number)
            done.append(await self._measure(repeat, _title(number + 1, course.repeats)))
        return self._median(_whole(done) if self._is_over(done[-1]) else done)

    def _is_over(self, last: _Measurement) -> bool:
        return self._is_stopped or last.results.rig.lost > 0

    async def _warm_up(self, plan: Plan, duration_s: float) -> None:
        if duration_s and not self._is_stopped:
            load = warm_up_load(plan.load, duration_s)
            warm_up = msgspec.structs.replace(plan, load=load, sends_late=False)
            self._view.phase("warm-up", total_s=duration_s)
            await self._observe(warm_up, Collector(warm_up), is_measured=False)
        if self._is_stopped:
            raise Interrupted

    async def _measure(self, plan: Plan, title: str) -> _Measurement:
        collector = Collector(plan, goodput=self._goodput)
        self._run += 1
        self._view.phase(title, total_s=plan.load.duration_s, total_requests=_amount(plan.load))
        self._watch_usage()
        if self._mock is not None:
            await self._mock.start()
        figures = await self._observe(plan, collector, is_measured=True)
        if not (self._is_stopped or any(one.lost for one in figures)):
            collector.came_to_its_end()
        seen = NOT_WATCHED if self._mock is None else await self._mock.finish(collector.hang_ups())
        results = collector.results(figures, seen)
        sent = results.side.requests - results.side.error_kinds.get(OUTCOMES[UNSENT], 0)
        return _Measurement(results, await self._used(sent))

    async def _used(self, sent: int) -> ProcessUsage | None:
        if self._usage is None:
            return None
        if rest_s := self._usage.end():
            self._view.phase("cooling down", total_s=rest_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._stopped.wait()
        return self._usage.finish(sent)

    def _watch_usage(self) -> None:
        """A target that has ended since costs its figures, not the report."""
        try:
            if self._usage is not None:
                self._usage.start()
        except ConfigError:
            self._usage = None

    async def _observe(
        self, plan: Plan, collector: Collector, *, is_measured: bool
    ) -> Sequence[RigFigures]:
        def take(frame: Frame) -> None:
            collector.add(frame)
            if is_measured and self._on_frame is not None:
                self._on_frame(frame, self._run)

        watch = asyncio.create_task(self._watch(collector, is_measured=is_measured))
        try:
            return await self._rig.run(plan, take)
        finally:
            watch.cancel()
            await asyncio.wait((watch,))
            if not watch.cancelled():
                watch.result()  # it failed by itself

    async def _watch(self, collector: Collector, *, is_measured: bool) -> None:
        while True:
            await asyncio.sleep(SHOWN_EVERY_S)
            self._view.update(collector.live())
            for watched in (self._usage, self._mock) if is_measured else ():
                if watched is not None:
                    watched.sample()

    def _median(self, done: list[_Measurement]) -> Measured:
        runs = tuple(summary(one.results.side, one.results.added_latency_ms) for one in done)
        chosen = done[median_run(runs)]
        return Measured(
            results=chosen.results,
            last=done[-1].results,
            process=chosen.process,
            spread=chosen.results.spread if len(runs) == 1 else spread_of(runs),
            runs=runs if len(runs) > 1 else (),
            interrupted=self._is_stopped,
        )

    async def _search(self, plan: Plan, service: Service) -> Measured:
        done: list[_Measurement] = []  # of each probe, and one that was cut short

        async def probe(rate: float, limit: int) -> Probe:
            before = sum(one.rate == rate for one in search.probes)
            probed = at_rate(plan, rate, window=before)
            title = f"{service.title(limit)}probing {format_rate(rate)}/s"
            done.append(await self._measure(probed, title))
            if self._is_over(done[-1]):
                raise Interrupted
            return service.judge(probed, done[-1].results)

        assert isinstance(plan.load, Open)
        search = RateSearch(
            probe,
            service.limits,
            most_probes=service.most_probes,
            lowest_rate=service.lowest_rate(plan.load),
        )
        with suppress(Interrupted):
            await search.run(service.first_rate)
        measured = replace(self._median([done[search.chosen]]), last=done[-1].results)
        if service.p99_limits_ms:
            return replace(measured, frontier=frontier(search, service.p99_limits_ms))
        return replace(measured, find_max=find_max(search, service.slo))


def warm_up_load(load: Load, duration_s: float) -> Load:
    """As heavy as the run begins; a ramp that begins with nothing has its first rate."""
    if isinstance(load, Closed):
        return msgspec.structs.replace(load, requests=None, duration_s=duration_s)
    if isinstance(load, Replay):
        return load.until(duration_s)
    rate = load.start_rate or load.stages[0].rate
    stages = (Stage(duration_s=duration_s, rate=rate),)
    return msgspec.structs.replace(load, stages=stages, start_rate=rate)


def at_rate(plan: Plan, rate: float, *, window: int = 0) -> Plan:
    """Each window at a rate draws arrivals of its own: the same ones would confirm their luck."""
    assert isinstance(plan.load, Open)
    stages = (Stage(duration_s=plan.load.duration_s, rate=rate),)
    load = msgspec.structs.replace(plan.load, stages=stages, start_rate=rate)
    return msgspec.structs.replace(plan, load=load, seed=plan.seed + window)


def _whole(done: list[_Measurement]) -> list[_Measurement]:
    """Without the run that was cut short, when there are others."""
    return done[:-1] or done


def _title(number: int, runs: int) -> str:
    return "running" if runs == 1 else f"run {number} of {runs}"


def _amount(load: Load) -> int | None:
    return load.requests if isinstance(load, Closed) else None
