"""The phases of a benchmark on one rig: warm-up, then runs or the search for the highest rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import msgspec

from llm_proxy.benchmark.collector import Collector
from llm_proxy.benchmark.find_max import Search
from llm_proxy.benchmark.keeping_pace import shortfall
from llm_proxy.benchmark.live import Live
from llm_proxy.benchmark.plan import Closed, Load, Open, Plan, Stage
from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.repeats import median_run, spread_of, summary
from llm_proxy.benchmark.report import Check, FindMax, Probe, ProcessUsage, Run, Spread
from llm_proxy.benchmark.results import Results
from llm_proxy.benchmark.samples import OUTCOMES, UNSENT, Frame, RigFigures
from llm_proxy.benchmark.thresholds import Threshold, check_error_rate
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

    def finish(self, requests: int) -> ProcessUsage | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What --find-max looks for, and where it begins."""

    thresholds: tuple[Threshold, ...]
    max_error_rate: float
    start_rate: float

    def checks(self, results: Results) -> list[Check]:
        checks = [threshold.check(results) for threshold in self.thresholds]
        return [*checks, check_error_rate(results.side, self.max_error_rate)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    warm_up_s: float = 0.0
    repeats: int = 1
    service: Service | None = None  # then the plan's load is that of one probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    results: Results
    process: ProcessUsage | None
    spread: dict[str, Spread]
    runs: tuple[Run, ...] = ()  # of several
    find_max: FindMax | None = None
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
        on_frame: Callable[[Frame, int], None] | None = None,
    ) -> None:
        """`on_frame` gets what is measured, and in which run of it; not the warm-up."""
        self._rig = rig
        self._view = view
        self._usage = usage
        self._on_frame = on_frame
        self._is_stopped = False
        self._run = -1  # which one is measured

    def stop(self) -> None:
        """Ends the run under way and begins no other."""
        self._is_stopped = True
        self._rig.stop()

    async def run(self, plan: Plan, course: Course) -> Measured:
        """Raises Interrupted when it was stopped before the first run."""
        await self._warm_up(plan, course.warm_up_s)
        if course.service is not None:
            return await self._find_max(plan, course.service)
        done = [await self._measure(plan, _title(1, course.repeats))]
        while len(done) < course.repeats and not self._is_over(done[-1]):
            done.append(await self._measure(plan, _title(len(done) + 1, course.repeats)))
        return self._median(_whole(done) if self._is_over(done[-1]) else done)

    def _is_over(self, last: _Measurement) -> bool:
        return self._is_stopped or last.results.rig.lost > 0

    async def _warm_up(self, plan: Plan, duration_s: float) -> None:
        if duration_s and not self._is_stopped:
            load = warm_up_load(plan.load, duration_s)
            warm_up = msgspec.structs.replace(plan, load=load)
            self._view.phase("warm-up", total_s=duration_s)
            await self._observe(warm_up, Collector(warm_up), is_measured=False)
        if self._is_stopped:
            raise Interrupted

    async def _measure(self, plan: Plan, title: str) -> _Measurement:
        collector = Collector(plan)
        self._run += 1
        self._view.phase(title, total_s=_length_s(plan.load), total_requests=_amount(plan.load))
        self._watch_usage()
        figures = await self._observe(plan, collector, is_measured=True)
        results = collector.results(figures)
        sent = results.side.requests - results.side.error_kinds.get(OUTCOMES[UNSENT], 0)
        usage = None if self._usage is None else self._usage.finish(sent)
        return _Measurement(results, usage)

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
            if is_measured and self._usage is not None:
                self._usage.sample()

    def _median(self, done: list[_Measurement]) -> Measured:
        runs = tuple(summary(one.results.side, one.results.added_latency_ms) for one in done)
        chosen = done[median_run(runs)]
        return Measured(
            results=chosen.results,
            process=chosen.process,
            spread=chosen.results.spread if len(runs) == 1 else spread_of(runs),
            runs=runs if len(runs) > 1 else (),
            interrupted=self._is_stopped,
        )

    async def _find_max(self, plan: Plan, service: Service) -> Measured:
        best: list[_Measurement] = []  # at the highest rate that passed, else the last one
        best_rate = 0.0

        async def probe(rate: float) -> Probe:
            nonlocal best_rate
            probed = at_rate(plan, rate)
            measurement = await self._measure(probed, f"probing {format_rate(rate)}/s")
            if self._is_over(measurement):
                best[:] = best or [measurement]
                raise Interrupted
            found = _judged(probed, measurement.results, service)
            if not best_rate or (found.passed and rate >= best_rate):
                best[:] = [measurement]
                best_rate = rate if found.passed else 0.0
            return found

        search = Search(probe, [threshold.name for threshold in service.thresholds])
        try:
            found = await search.run(service.start_rate)
        except Interrupted:
            found = search.interrupted()
        return replace(self._median(best), find_max=found)


def warm_up_load(load: Load, duration_s: float) -> Load:
    """As heavy as the run begins; a ramp that begins with nothing has its first rate."""
    if isinstance(load, Closed):
        return msgspec.structs.replace(load, requests=None, duration_s=duration_s)
    rate = load.start_rate or load.stages[0].rate
    stages = (Stage(duration_s=duration_s, rate=rate),)
    return msgspec.structs.replace(load, stages=stages, start_rate=rate)


def at_rate(plan: Plan, rate: float) -> Plan:
    assert isinstance(plan.load, Open)
    stages = (Stage(duration_s=plan.load.duration_s, rate=rate),)
    load = msgspec.structs.replace(plan.load, stages=stages, start_rate=rate)
    return msgspec.structs.replace(plan, load=load)


def _judged(plan: Plan, results: Results, service: Service) -> Probe:
    assert isinstance(plan.load, Open)
    missed = [check.message for check in service.checks(results) if not check.passed]
    if reason := shortfall(results.series, plan.load):
        missed.append(reason)
    return Probe(
        rate=plan.load.start_rate,
        requests_per_second=results.side.requests_per_second,
        passed=not missed,
        reason="; ".join(missed),
        latency_ms=results.side.latency_ms,
        rig_bound=results.rig.verdict == "rig-bound",
    )


def _whole(done: list[_Measurement]) -> list[_Measurement]:
    """Without the run that was cut short, when there are others."""
    return done[:-1] or done


def _title(number: int, runs: int) -> str:
    return "running" if runs == 1 else f"run {number} of {runs}"


def _length_s(load: Load) -> float | None:
    return load.duration_s


def _amount(load: Load) -> int | None:
    return load.requests if isinstance(load, Closed) else None
