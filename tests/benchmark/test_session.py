from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from llm_proxy.benchmark.goodput import parse_goodput
from llm_proxy.benchmark.live import Live
from llm_proxy.benchmark.mock_figures import MockFigures
from llm_proxy.benchmark.plan import Closed, Load, Open, Plan, Replay, Stage, Target, Workload
from llm_proxy.benchmark.report import HangUps, ProcessUsage
from llm_proxy.benchmark.samples import (
    CANCELLED,
    OK,
    SERVER_ERROR,
    TICKS_PER_MS,
    TICKS_PER_S,
    Frame,
    RigFigures,
    lost_process,
    new_gaps,
    new_samples,
)
from llm_proxy.benchmark.service import Service
from llm_proxy.benchmark.session import (
    SHOWN_EVERY_S,
    Course,
    Interrupted,
    Measured,
    Session,
    at_rate,
    warm_up_load,
)
from llm_proxy.benchmark.thresholds import parse_slo
from llm_proxy.errors import ConfigError
from tests.benchmark.reports import make_process

pytestmark = pytest.mark.anyio

CLOSED = Closed(concurrency=2, requests=50)
LONG = Open(stages=(Stage(duration_s=10, rate=100),), start_rate=100)
SECOND = Open(stages=(Stage(duration_s=1, rate=100),), start_rate=100)


def plan(load: Load = CLOSED) -> Plan:
    return Plan(targets=(Target(base_url="http://127.0.0.1:1"),), workload=Workload(), load=load)


class ScriptedRig:
    """Answers every run with 50 requests, or as many as it asks for in a second, that took as
    long as `latency_ms` says of it."""

    def __init__(
        self,
        latency_ms: Callable[[Plan], float] = lambda plan: 5.0,
        *,
        before: Callable[[int], object] = lambda number: None,
        takes_s: float = 0.0,
        lag_ms: float = 0.1,
        outcome: int = OK,
        capacity: int = 100_000,
    ) -> None:
        self.plans: list[Plan] = []
        self.stops = 0
        self._latency_ms = latency_ms
        self._before = before
        self._takes_s = takes_s
        self._lag_ms = lag_ms
        self._outcome = outcome
        self._capacity = capacity

    async def run(self, plan: Plan, on_frame: Callable[[Frame], None]) -> list[RigFigures]:
        self.plans.append(plan)
        self._before(len(self.plans))
        await asyncio.sleep(self._takes_s)
        count = max(50, round(rate_of(plan))) if isinstance(plan.load, Open) else 50
        count = min(count, self._capacity)
        on_frame(frame_of(self._latency_ms(plan), self._outcome, count=count))
        return [figures(self._lag_ms)]

    def stop(self) -> None:
        self.stops += 1


def figures(lag_ms: float) -> RigFigures:
    fields: dict[str, Any] = dict.fromkeys(RigFigures.__struct_fields__, 0)
    return RigFigures(
        **fields | {"cpu_s": 0.1, "wall_s": 1.0, "lag_p99_ms": lag_ms, "lag_ticks": 100}
    )


def frame_of(latency_ms: float, outcome: int, *, count: int) -> Frame:
    samples = new_samples()
    for number in range(count):
        row = {name: 0 for name in samples.__struct_fields__}
        row |= {
            "outcome": outcome,
            "status": 200 if outcome == OK else 500,
            "due": number * TICKS_PER_S // count,
            "service": round(latency_ms * TICKS_PER_MS) + number,
            **dict.fromkeys(("first_token", "second_token", "last_token", "gap", "pair"), -1),
            **dict.fromkeys(("proxy", "upstream"), -1),
        }
        for name, value in row.items():
            getattr(samples, name).append(value)
    return Frame(process=0, at=TICKS_PER_S, in_flight=1, samples=samples, gaps=new_gaps())


class Notes:
    """A view, and the usage of a process."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, float | None, int | None]] = []
        self.shown: list[Live] = []
        self.watched: list[str] = []
        self.rest_s = 0.0
        self.at_end: Callable[[], None] = lambda: None

    def phase(
        self, text: str, *, total_s: float | None = None, total_requests: int | None = None
    ) -> None:
        self.phases.append((text, total_s, total_requests))

    def update(self, live: Live) -> None:
        self.shown.append(live)

    def start(self) -> None:
        self.watched.append("start")

    def sample(self) -> None:
        self.watched.append("sample")

    def end(self) -> float:
        self.watched.append("end")
        self.at_end()
        return self.rest_s

    def finish(self, requests: int) -> ProcessUsage:
        self.watched.append(f"finish {requests}")
        return make_process()


async def run(rig: ScriptedRig, course: Course, load: Load = CLOSED) -> tuple[Measured, Notes]:
    notes = Notes()
    session = Session(rig, notes, usage=notes)
    return await session.run(plan(load), course), notes


async def test_warm_up_goes_before_and_is_not_counted() -> None:
    rig, frames = ScriptedRig(), list[tuple[Frame, int]]()
    notes = Notes()
    session = Session(rig, notes, usage=notes, on_frame=lambda *one: frames.append(one))
    measured = await session.run(plan(), Course(warm_up_s=0.5))
    assert [one.load for one in rig.plans] == [Closed(concurrency=2, duration_s=0.5), CLOSED]
    assert notes.phases == [("warm-up", 0.5, None), ("running", None, 50)]
    assert [run for _, run in frames] == [0]
    assert measured.results.side.requests == 50
    assert notes.watched == ["start", "end", "finish 50"]
    assert measured.process == make_process()
    assert (measured.runs, measured.find_max, measured.interrupted) == ((), None, False)


async def test_each_repeat_draws_by_lots_of_its_own() -> None:
    rig = ScriptedRig()
    await run(rig, Course(repeats=3))
    seeds = [one.seed for one in rig.plans]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2]


async def test_median_of_repeats_is_reported_with_all_runs() -> None:
    latencies = iter((30.0, 10.0, 20.0))
    measured, notes = await run(ScriptedRig(lambda plan: next(latencies)), Course(repeats=3))
    assert [phase[0] for phase in notes.phases] == ["run 1 of 3", "run 2 of 3", "run 3 of 3"]
    latency = measured.results.side.latency_ms
    assert latency is not None
    assert latency.p50 == pytest.approx(20, rel=0.01)
    assert len(measured.runs) == 3
    spread = measured.spread["latency_ms.p50"]
    assert (spread.low, spread.high) == pytest.approx((10, 30), rel=0.01)


async def test_every_run_is_told_from_the_others() -> None:
    numbers: list[int] = []
    session = Session(ScriptedRig(), Notes(), on_frame=lambda _, run: numbers.append(run))
    await session.run(plan(), Course(warm_up_s=0.5, repeats=3))
    assert numbers == [0, 1, 2]


async def test_run_is_shown_and_the_process_watched_meanwhile() -> None:
    _, notes = await run(ScriptedRig(takes_s=SHOWN_EVERY_S * 2.5), Course())
    assert notes.shown
    assert "sample" in notes.watched


class ScriptedMock:
    def __init__(self) -> None:
        self.watched: list[str] = []

    async def start(self) -> None:
        self.watched.append("start")

    def sample(self) -> None:
        self.watched.append("sample")

    async def finish(self, hang_ups: int) -> MockFigures:
        self.watched.append(f"finish {hang_ups}")
        return MockFigures(cpu_share=0.97, hang_ups=49)


async def test_mock_is_asked_of_each_run_but_not_of_the_warm_up() -> None:
    mock = ScriptedMock()
    hanging_up = replace(plan(), workload=Workload(is_stream=True, cancel_rate=1.0))
    session = Session(ScriptedRig(outcome=CANCELLED), Notes(), mock=mock)
    measured = await session.run(hanging_up, Course(warm_up_s=0.1, repeats=2))
    assert mock.watched == ["start", "finish 50"] * 2
    assert measured.results.hang_ups == HangUps(sent=50, seen_upstream=49)
    assert measured.results.rig.mock_cpu_share == 0.97


async def test_warm_up_leaves_what_it_could_not_send() -> None:
    rig = ScriptedRig()
    await Session(rig, Notes()).run(plan(SECOND), Course(warm_up_s=0.5))
    assert [one.sends_late for one in rig.plans] == [False, True]


async def test_target_is_left_alone_before_its_memory_is_measured_again() -> None:
    notes = Notes()
    notes.rest_s = 0.01
    await Session(ScriptedRig(), notes, usage=notes).run(plan(), Course())
    assert notes.phases == [("running", None, 50), ("cooling down", 0.01, None)]
    assert notes.watched == ["start", "end", "finish 50"]


async def test_rest_ends_when_the_session_is_stopped() -> None:
    notes = Notes()
    notes.rest_s = 3600.0
    session = Session(ScriptedRig(), notes, usage=notes)
    notes.at_end = session.stop
    measured = await session.run(plan(), Course(repeats=2))
    assert measured.interrupted
    assert notes.watched == ["start", "end", "finish 50"]


async def test_goodput_is_of_what_is_measured() -> None:
    session = Session(ScriptedRig(), Notes(), goodput=parse_goodput("latency=1h"))
    measured = await session.run(plan(), Course())
    assert measured.results.side.goodput is not None
    assert measured.results.side.goodput.share == 1.0


async def test_search_may_be_for_goodput() -> None:
    rig = ScriptedRig(lambda plan: 10.0 if rate_of(plan) <= 400 else 90.0)
    session = Session(rig, Notes(), goodput=parse_goodput("latency=50ms"))
    wanted = service("goodput=95%")
    measured = await session.run(plan(SECOND), Course(service=wanted))
    assert measured.find_max is not None
    assert measured.find_max.rate == pytest.approx(400, rel=0.06)
    missed = [probe.reason for probe in measured.find_max.probes if not probe.passed]
    assert "goodput is 0 %, below 95 %" in missed


async def test_view_that_fails_is_no_secret() -> None:
    class Broken(Notes):
        def update(self, live: Live) -> None:
            raise OSError("the terminal is gone")

    rig = ScriptedRig(takes_s=SHOWN_EVERY_S * 1.5)
    with pytest.raises(OSError, match="the terminal is gone"):
        await Session(rig, Broken()).run(plan(), Course())


async def test_stop_ends_the_run_and_begins_no_other() -> None:
    rig = ScriptedRig(before=lambda number: session.stop() if number == 2 else None)
    session = Session(rig, Notes())
    measured = await session.run(plan(), Course(repeats=5))
    assert len(rig.plans) == 2
    assert rig.stops == 1
    assert measured.interrupted
    assert measured.runs == ()  # the one that was cut short doesn't count beside a whole one


async def test_first_run_is_reported_even_when_it_was_cut_short() -> None:
    rig = ScriptedRig(before=lambda number: session.stop())
    session = Session(rig, Notes())
    measured = await session.run(plan(), Course())
    assert measured.interrupted
    assert measured.results.side.requests == 50


async def test_open_load_that_came_to_its_end_took_as_long_as_planned() -> None:
    # The last answer is there after one second.
    measured, _ = await run(ScriptedRig(), Course(), at_rate(plan(LONG), 5).load)
    assert measured.results.side.duration_s == 10
    assert measured.results.side.requests_per_second == 5


async def test_open_load_that_was_broken_off_took_as_long_as_it_went() -> None:
    rig = ScriptedRig(before=lambda number: session.stop())
    session = Session(rig, Notes())
    measured = await session.run(plan(LONG), Course())
    assert measured.results.side.duration_s < 2


async def test_open_load_whose_generator_was_lost_took_as_long_as_it_went() -> None:
    class Losing(ScriptedRig):
        async def run(self, plan: Plan, on_frame: Callable[[Frame], None]) -> list[RigFigures]:
            await super().run(plan, on_frame)
            return [lost_process(0, "killed")]

    measured, _ = await run(Losing(), Course(), LONG)
    assert measured.results.side.duration_s < 2


async def test_stop_during_the_warm_up_leaves_nothing_to_report() -> None:
    rig = ScriptedRig(before=lambda number: session.stop())
    session = Session(rig, Notes())
    with pytest.raises(Interrupted):
        await session.run(plan(), Course(warm_up_s=1))
    assert len(rig.plans) == 1


async def test_target_that_ended_costs_its_figures_and_not_the_report() -> None:
    class Gone(Notes):
        def start(self) -> None:
            raise ConfigError("no such process")

    notes = Gone()
    measured = await Session(ScriptedRig(), notes, usage=notes).run(plan(), Course())
    assert measured.process is None
    assert measured.results.side.requests == 50


def rate_of(plan: Plan) -> float:
    assert isinstance(plan.load, Open)
    return plan.load.start_rate


def service(slo: str = "p99=50ms", **options: Any) -> Service:
    return Service(
        **{"thresholds": parse_slo(slo), "max_error_rate": 0.01, "first_rate": 100.0, **options}
    )


async def test_search_reports_the_best_rate_and_its_figures() -> None:
    rig = ScriptedRig(lambda plan: 10 if rate_of(plan) <= 300 else 90)
    measured, notes = await run(rig, Course(service=service()), SECOND)
    found = measured.find_max
    assert found is not None
    assert found.confirmed
    assert found.rate is not None
    assert 285 < found.rate <= 300
    assert found.slo == ("p99<=50ms",)
    latency = measured.results.side.latency_ms
    assert latency is not None
    assert latency.p99 == pytest.approx(10, rel=0.01)
    assert notes.phases[0] == ("probing 100/s", 1, None)
    missed = [probe.reason for probe in found.probes if not probe.passed]
    assert missed
    assert all("p99 is 90" in reason for reason in missed)


async def test_windows_that_confirm_draw_arrivals_of_their_own() -> None:
    rig = ScriptedRig(lambda plan: 10 if rate_of(plan) <= 300 else 90)
    measured, _ = await run(rig, Course(service=service()), SECOND)
    assert measured.find_max is not None
    at_best = [one for one in rig.plans if rate_of(one) == measured.find_max.rate]
    assert [one.seed for one in at_best] == [0, 1, 2]
    assert {one.seed for one in rig.plans if one not in at_best} == {0}


async def test_rate_that_is_demanded_is_no_reason_to_go_down() -> None:
    rig = ScriptedRig(lambda plan: 10 if rate_of(plan) <= 300 else 90)
    course = Course(service=service("p99=50ms,rps=250"))
    measured, _ = await run(rig, course, SECOND)
    assert measured.find_max is not None
    assert measured.find_max.rate == pytest.approx(300, rel=0.05)
    assert measured.find_max.probes[0].passed


async def test_search_that_finds_nothing_shows_what_it_saw() -> None:
    measured, _ = await run(
        ScriptedRig(lambda plan: 90), Course(service=service(first_rate=1.0)), SECOND
    )
    assert measured.find_max is not None
    assert measured.find_max.rate is None
    assert measured.results.side.requests == 50


async def test_a_rate_that_is_not_answered_in_time_is_none() -> None:
    rig = ScriptedRig(lambda plan: 1, capacity=150)
    measured, _ = await run(rig, Course(service=service("service.p99=50ms")), SECOND)
    assert measured.find_max is not None
    assert measured.find_max.rate == pytest.approx(150, rel=0.1)
    assert "/s of 200/s were answered" in measured.find_max.probes[1].reason


async def test_errors_are_no_way_to_be_fast() -> None:
    rig = ScriptedRig(lambda plan: 1, outcome=SERVER_ERROR)
    measured, _ = await run(rig, Course(service=service("errors=100%")), SECOND)
    assert measured.find_max is not None
    assert measured.find_max.rate is None
    assert "error rate is 100 %" in measured.find_max.probes[0].reason


async def test_frontier_has_a_rate_for_each_limit_and_the_strictest_ones_figures() -> None:
    rig = ScriptedRig(lambda plan: 5 if rate_of(plan) <= 300 else 30 if rate_of(plan) < 900 else 99)
    asked = service("rps=1,frontier.10ms=1", p99_limits_ms=(1.0, 10.0, 50.0))
    measured, notes = await run(rig, Course(service=asked), SECOND)
    found = measured.frontier
    assert measured.find_max is None
    assert found is not None
    strict, middle, loose = found.points
    assert (strict.rate, strict.latency_ms) == (None, None)
    assert middle.rate is not None and 285 < middle.rate <= 300
    assert loose.rate is not None and 855 < loose.rate < 900
    assert middle.confirmed and loose.confirmed
    latency = measured.results.side.latency_ms
    assert latency == middle.latency_ms
    assert latency is not None and latency.p99 == pytest.approx(5, rel=0.01)
    titles = [title for title, _s, _requests in notes.phases]
    assert titles[0] == "frontier: p99 <= 50 ms, probing 100/s"
    assert titles[-1] == "frontier: p99 <= 1 ms, probing 1.00/s"


async def test_last_probe_tells_how_the_target_was_left() -> None:
    rig = ScriptedRig(lambda plan: 5 if rate_of(plan) <= 300 else 99)
    measured, _ = await run(rig, Course(service=service(p99_limits_ms=(10.0, 200.0))), SECOND)
    assert measured.frontier is not None
    assert measured.results.side.latency_ms == measured.frontier.points[0].latency_ms
    assert measured.last.side.latency_ms == measured.frontier.probes[-1].latency_ms
    repeated, _ = await run(ScriptedRig(), Course(repeats=2))
    assert repeated.last.side.requests == 50


async def test_frontier_that_is_stopped_keeps_its_points() -> None:
    rig = ScriptedRig(
        lambda plan: 5 if rate_of(plan) <= 300 else 99,
        before=lambda number: session.stop() if number == 5 else None,
    )
    session = Session(rig, Notes())
    course = Course(service=service("rps=1", p99_limits_ms=(1.0, 50.0)))
    measured = await session.run(plan(SECOND), course)
    assert measured.interrupted and measured.frontier is not None
    strict, loose = measured.frontier.points
    assert (strict.rate, loose.rate) == (None, 300)
    assert "interrupted" in strict.note and "interrupted" in loose.note
    assert measured.results.side.latency_ms == loose.latency_ms
    assert len(measured.frontier.probes) == 4


async def test_search_that_is_stopped_keeps_what_it_knows() -> None:
    rig = ScriptedRig(
        lambda plan: 10, before=lambda number: session.stop() if number == 3 else None
    )
    session = Session(rig, Notes())
    measured = await session.run(plan(SECOND), Course(service=service()))
    assert measured.interrupted
    assert measured.find_max is not None
    assert measured.find_max.rate == 200
    assert "interrupted" in measured.find_max.note
    assert len(measured.find_max.probes) == 2


def test_warm_up_is_as_heavy_as_the_run_begins() -> None:
    assert warm_up_load(CLOSED, 2) == Closed(concurrency=2, duration_s=2)
    ramp = Open(stages=(Stage(duration_s=10, rate=50), Stage(duration_s=5, rate=9)), start_rate=0)
    assert warm_up_load(ramp, 2) == Open(stages=(Stage(duration_s=2, rate=50),), start_rate=50)
    replay = Replay(offsets_s=(0, 1, 3), bodies=(0, 1, 2))
    assert warm_up_load(replay, 2) == Replay(offsets_s=(0, 1), bodies=(0, 1))


def test_probe_has_its_rate_from_beginning_to_end() -> None:
    assert at_rate(plan(SECOND), 7).load == Open(
        stages=(Stage(duration_s=1, rate=7),), start_rate=7
    )
