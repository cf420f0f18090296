from __future__ import annotations

from random import Random

import pytest

from llm_proxy.benchmark.collector import Collector
from llm_proxy.benchmark.mock_figures import MockFigures
from llm_proxy.benchmark.plan import DIRECT, PROXIED, Closed, Open, Plan, Stage, Workload
from llm_proxy.benchmark.report import HangUps
from llm_proxy.benchmark.results import Results
from llm_proxy.benchmark.samples import CANCELLED, CUT, OK, TIMEOUT, Frame
from tests.benchmark.framing import MS, SECOND, Row, ended, figures_of, frame_of, plan_of, row

TEN_SECONDS = Closed(concurrency=10, duration_s=10.0)


def collector_of(plan: Plan, *frames: Frame) -> Collector:
    collector = Collector(plan)
    for frame in frames:
        collector.add(frame)
    return collector


def results_of(plan: Plan, *frames: Frame) -> Results:
    return collector_of(plan, *frames).results([figures_of()])


def constant(rate: float, duration_s: float = 10.0) -> Open:
    return Open(stages=(Stage(duration_s=duration_s, rate=rate),), start_rate=rate)


def paired_rows(count: int, *, added: int = 0, seed: int = 1) -> list[Row]:
    random = Random(seed)
    rows = []
    for number in range(count):
        at = (number + 1) * 10 * MS
        for lane in (PROXIED, DIRECT):
            service = int(random.lognormvariate(0, 0.1) * MS) + (added if lane == PROXIED else 0)
            rows.append(ended(at, lane, service=service, pair=number, digest=7))
    return rows


def test_a_plain_run_has_only_its_own_side() -> None:
    found = results_of(plan_of(), frame_of([ended(SECOND)] * 5))
    assert (found.side.requests, found.side.duration_s) == (5, 1.0)
    assert (found.direct, found.added_latency_ms, found.fidelity) == (None, None, None)
    assert sorted(found.histograms) == ["proxied.latency", "proxied.service"]
    assert found.rig.late_ms is None


def test_an_answer_that_is_waited_for_does_not_dilute_the_rate() -> None:
    rows = [ended((number + 1) * 10 * MS) for number in range(1000)]
    straggler = frame_of([ended(40 * SECOND, service=31 * SECOND)], at=40 * SECOND)
    found = results_of(plan_of(TEN_SECONDS), frame_of(rows, at=10 * SECOND), straggler)
    assert (found.side.duration_s, found.side.requests_per_second) == (40.0, 100.0)
    spread = found.spread["requests_per_second"]
    assert spread.low > 99 and spread.high < 101


def test_the_last_round_of_slow_answers_counts_with_the_time_it_took() -> None:
    # Ten connections, 6 s an answer: 20 answers in 12 s, of which 10 ended in the planned 10 s.
    rounds = [frame_of([ended(at * SECOND, service=6 * SECOND)] * 10) for at in (6, 12)]
    side = results_of(plan_of(TEN_SECONDS), *rounds).side
    assert side.requests_per_second == pytest.approx(20 / 12, rel=1e-3)


def test_a_run_without_answers_has_results_all_the_same() -> None:
    found = results_of(plan_of(is_paired=True), frame_of([]))
    assert found.side.requests == 0
    assert (found.series, found.spread, found.added_latency_ms) == ((), {}, None)
    assert found.fidelity is not None
    assert found.fidelity.verdict == "not comparable"
    assert Collector(plan_of()).results([]).side.requests == 0


def test_the_rate_is_of_the_planned_time() -> None:
    # Ten arrivals, one a second: the last is answered long before the end.
    rows = [ended(second * SECOND + MS) for second in range(10)]
    found = results_of(plan_of(constant(1.0)), frame_of(rows, at=10 * SECOND + 5))
    assert (found.side.duration_s, found.side.requests_per_second) == (10.0, 1.0)


def test_the_rate_is_of_the_planned_time_though_the_last_answer_came_before() -> None:
    # One arrival in ten seconds: the run has nothing left to do after a millisecond.
    collector = collector_of(plan_of(constant(0.1)), frame_of([ended(MS)], at=MS))
    collector.came_to_its_end()
    found = collector.results([figures_of()])
    assert (found.side.duration_s, found.side.requests_per_second) == (10.0, 0.1)
    (second,) = found.series
    assert (second.length_s, second.requests_per_second) == (10.0, 0.1)


def test_a_closed_load_ends_with_its_last_answer_even_when_it_had_more_time() -> None:
    load = Closed(concurrency=1, requests=1, duration_s=10.0)
    collector = collector_of(plan_of(load), frame_of([ended(MS)], at=MS))
    collector.came_to_its_end()
    assert collector.results([figures_of()]).side.duration_s == 0.001


def test_answers_after_the_planned_time_make_the_run_longer() -> None:
    found = results_of(plan_of(TEN_SECONDS), frame_of([ended(12 * SECOND)], at=12 * SECOND))
    assert found.side.duration_s == 12.0


def test_an_interrupted_run_is_as_long_as_it_went() -> None:
    found = results_of(plan_of(TEN_SECONDS), frame_of([ended(2 * SECOND)], at=4 * SECOND))
    assert found.side.duration_s == 4.0


def test_a_paired_run_finds_what_is_added() -> None:
    rows = paired_rows(400, added=5 * MS)
    found = results_of(plan_of(is_paired=True), frame_of(rows, at=4 * SECOND))
    assert found.direct is not None
    assert (found.side.requests, found.direct.requests) == (400, 400)
    assert found.added_latency_ms is not None
    assert found.added_latency_ms.is_found
    low, high = found.added_latency_ms.ci95
    assert low <= 5 <= high
    assert high - low < 0.2
    assert found.added_ttft_ms is None
    assert found.fidelity is not None
    assert (found.fidelity.verdict, found.fidelity.compared) == ("equal", 400)
    assert "direct.latency" in found.histograms


def test_a_paired_run_finds_nothing_where_nothing_is() -> None:
    found = results_of(plan_of(is_paired=True), frame_of(paired_rows(400), at=4 * SECOND))
    assert found.added_latency_ms is not None
    assert not found.added_latency_ms.is_found


def test_halves_of_a_pair_may_come_in_different_frames() -> None:
    rows = paired_rows(50)
    frames = [frame_of(rows[:31]), frame_of(rows[31:], at=2 * SECOND)]
    added = results_of(plan_of(is_paired=True), *frames).added_latency_ms
    assert added is not None
    assert added.count == 50


def test_a_changed_answer_is_caught() -> None:
    rows = paired_rows(20)
    rows[0]["digest"] = 8
    fidelity = results_of(plan_of(is_paired=True), frame_of(rows)).fidelity
    assert fidelity is not None
    assert (fidelity.verdict, fidelity.different) == ("different", 1)


def test_fidelity_is_left_alone_when_nobody_asked() -> None:
    plan = plan_of(is_paired=True, workload=Workload(checks_fidelity=False))
    assert results_of(plan, frame_of(paired_rows(5))).fidelity is None


def test_gaps_of_streams_are_kept_by_lane() -> None:
    plan = plan_of(is_paired=True, workload=Workload(is_stream=True))
    rows = [row(tokens=3, first_token=MS), row(DIRECT, tokens=3, first_token=MS)]
    found = results_of(plan, frame_of(rows, gaps=[2 * MS], direct_gaps=[MS, MS]))
    assert found.side.streams is not None
    assert found.side.streams.inter_token_ms is not None
    assert found.side.streams.inter_token_ms.max == 2.0
    assert found.direct is not None
    assert found.direct.streams is not None
    assert found.direct.streams.inter_token_ms is not None
    assert found.direct.streams.inter_token_ms.count == 2


def test_lateness_is_told_of_an_open_load() -> None:
    found = results_of(plan_of(constant(10.0)), frame_of([row(late=3 * MS), row()]))
    assert found.rig.late_ms is not None
    assert (found.rig.late_ms.count, found.rig.late_ms.max) == (2, 3.0)


def test_arrivals_never_sent_are_errors_of_both_sides() -> None:
    collector = collector_of(plan_of(constant(10.0), is_paired=True), frame_of(paired_rows(5)))
    found = collector.results([figures_of(unsent=2), figures_of(process=1, unsent=1)])
    assert found.direct is not None
    assert (found.side.error_kinds, found.direct.error_kinds) == ({"unsent": 2}, {"unsent": 1})
    assert (found.rig.verdict, found.rig.unsent) == ("ok", 3)  # the target was too slow


def test_hang_ups_of_the_proxied_lane_are_held_against_those_that_were_seen() -> None:
    outcomes = [(PROXIED, CANCELLED), (PROXIED, TIMEOUT), (PROXIED, OK), (DIRECT, CANCELLED)]
    rows = [ended(SECOND, lane, outcome=outcome) for lane, outcome in outcomes]
    hanging_up = plan_of(is_paired=True, workload=Workload(is_stream=True, cancel_rate=0.5))
    collector = collector_of(hanging_up, frame_of(rows))
    assert collector.hang_ups() == 2
    found = collector.results([figures_of()], MockFigures(hang_ups=1, cpu_share=0.95))
    assert found.hang_ups == HangUps(sent=2, seen_upstream=1)
    assert (found.rig.verdict, found.rig.mock_cpu_share) == ("rig-bound", 0.95)
    assert collector.results([figures_of()]).hang_ups == HangUps(sent=2, seen_upstream=None)


def test_runs_that_hang_up_on_nothing_do_not_tell_of_it() -> None:
    collector = collector_of(plan_of(), frame_of([ended(SECOND, outcome=TIMEOUT)]))
    assert collector.hang_ups() == 0
    assert collector.results([figures_of()]).hang_ups is None


def test_a_drifting_baseline_is_no_baseline() -> None:
    rows = paired_rows(1500)
    for number, one in enumerate(rows):
        if number > 2000:
            one["due"] -= one["service"]
            one["service"] *= 4
    slow = results_of(plan_of(is_paired=True), frame_of(rows, at=15 * SECOND))
    assert any("drifted" in reason for reason in slow.rig.reasons)
    steady = results_of(plan_of(is_paired=True), frame_of(paired_rows(1500), at=15 * SECOND))
    assert steady.rig.reasons == ()


def test_a_ramp_has_no_spread() -> None:
    ramp = Open(stages=(Stage(duration_s=10.0, rate=100.0),), start_rate=1.0)
    frame = frame_of([ended(at * 10 * MS) for at in range(1, 1000)], at=10 * SECOND)
    assert results_of(plan_of(ramp), frame).spread == {}
    assert "latency_ms.p99" in results_of(plan_of(constant(100.0)), frame).spread


def test_a_freeze_shows_in_corrected_latency() -> None:
    # 100 a second; from 5 s to 6 s nothing is answered, and what was due then comes at 6 s.
    rows = []
    for number in range(1000):
        due = number * 10 * MS
        wait = max(6 * SECOND - due, 0) if due >= 5 * SECOND else 0
        rows.append(row(due=due, late=wait, service=MS))
    found = results_of(plan_of(constant(100.0)), frame_of(rows, at=10 * SECOND)).side
    assert found.latency_ms is not None
    assert found.service_ms is not None
    assert found.latency_ms.p99 == pytest.approx(911, rel=0.02)
    assert found.service_ms.max == 1.0


def test_nothing_is_live_before_the_first_frame() -> None:
    live = Collector(plan_of()).live()
    assert (live.elapsed_s, live.requests, live.rate, live.p50_ms, live.rates) == (
        0,
        0,
        0,
        None,
        (),
    )


def test_live_figures_are_of_the_last_seconds() -> None:
    old = [ended(at * 10 * MS, service=50 * MS) for at in range(10, 301)]
    new = [ended(3 * SECOND + at * 20 * MS, service=4 * MS) for at in range(1, 150)]
    failed = [ended(5 * SECOND, outcome=CUT), ended(5 * SECOND, outcome=CANCELLED)]
    live = collector_of(
        plan_of(),
        frame_of(old, at=3 * SECOND),
        frame_of([*new, *failed], at=6 * SECOND, in_flight=4),
    ).live()
    assert (live.elapsed_s, live.requests, live.errors, live.in_flight) == (6.0, 442, 1, 4)
    assert live.p50_ms == pytest.approx(4, rel=1e-3)
    assert live.rate == pytest.approx(50, rel=0.02)
    assert live.rates[0] == 90
    assert live.rates[4] == 50
    assert len(live.rates) == 6


def test_live_figures_wait_for_the_slowest_process() -> None:
    collector = collector_of(
        plan_of(),
        frame_of([ended(at * 10 * MS) for at in range(1, 200)], at=2 * SECOND, in_flight=3),
        frame_of([ended(500 * MS)], at=SECOND, process=1, in_flight=2),
    )
    assert collector.live().rates == (100,)
    assert collector.live().in_flight == 5


def test_live_shows_the_baseline_and_the_first_token() -> None:
    rows = [ended(100 * MS, first_token=3 * MS), ended(100 * MS, DIRECT, service=2 * MS)]
    live = collector_of(plan_of(is_paired=True), frame_of(rows)).live()
    assert (live.direct_p50_ms, live.direct_p99_ms, live.ttft_p50_ms) == (2.0, 2.0, 3.0)
