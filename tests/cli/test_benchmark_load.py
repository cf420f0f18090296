from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.plan import Closed, Open, Replay, Stage
from llm_proxy.cli.benchmark_load import (
    LoadChoice,
    choose_load,
    parse_rate,
    parse_stages,
)
from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import WrongUsage


def choose(
    *,
    is_elsewhere: bool = False,
    is_throwaway: bool = False,
    trace: Replay | None = None,
    **options: Any,
) -> LoadChoice:
    return choose_load(
        Given(**options), is_elsewhere=is_elsewhere, is_throwaway=is_throwaway, replay=trace
    )


def test_without_options_ten_connections_are_used_for_ten_seconds() -> None:
    choice = choose(is_throwaway=True)
    assert choice.load == Closed(concurrency=10, duration_s=10.0)
    assert (choice.model, choice.warm_up_s, choice.repeats) == ("closed", 1.0, 1)
    assert choice.describe().description == "closed, 10 connections, 10 s"
    assert choice.describe().concurrency == 10


def test_elsewhere_a_hundred_requests_are_sent_and_none_to_warm_up() -> None:
    choice = choose(is_elsewhere=True)
    assert choice.load == Closed(concurrency=10, requests=100)
    assert choice.warm_up_s == 0
    assert choice.amount == 100


def test_requests_that_are_counted_are_all_that_is_sent_to_a_target() -> None:
    choice = choose(requests=40, concurrency=2, repeat=3)
    assert choice.load == Closed(concurrency=2, requests=40)
    assert choice.amount == 120
    assert choose(requests=40, is_throwaway=True).warm_up_s == 1.0


def test_rate_is_kept_for_as_long_as_is_asked() -> None:
    choice = choose(rate="500/s", duration="30s")
    assert choice.load == Open(stages=(Stage(duration_s=30, rate=500),), start_rate=500)
    assert choice.describe().description == "open, constant rate, 500/s, 30 s"
    assert choice.describe().rate == 500
    assert choice.amount == 15_500  # with the warm-up
    fastest = choose(rate="1000000/s", duration="1s").describe()
    assert fastest.description == "open, constant rate, 1,000,000/s, 1 s"


def test_rate_and_number_of_requests_make_the_length() -> None:
    load = choose(rate="2/s", requests=50).load
    assert load.duration_s == 25
    assert choose(rate="60/m", is_elsewhere=True).load.duration_s == 100


def test_requests_and_duration_together_end_with_whichever_comes_first() -> None:
    choice = choose(requests=100, duration="30s")
    assert choice.load == Closed(concurrency=10, requests=100, duration_s=30)
    assert choice.describe().description == "closed, 10 connections, 100 requests or 30 s"
    assert choose(rate="100/s", requests=100, duration="30s").load.duration_s == 1
    assert choose(rate="100/s", requests=9000, duration="30s").load.duration_s == 30


def test_concurrency_limits_what_is_in_flight_at_a_rate() -> None:
    load = choose(rate="5", concurrency=7, poisson=True).load
    assert isinstance(load, Open)
    assert (load.max_in_flight, load.arrivals) == (7, "poisson")


def test_stages_are_ramps_from_nothing() -> None:
    choice = choose(stages="10s:100, 30s:500/s,5s:0")
    assert isinstance(choice.load, Open)
    assert choice.load.start_rate == 0
    assert choice.load.stages == (
        Stage(duration_s=10, rate=100),
        Stage(duration_s=30, rate=500),
        Stage(duration_s=5, rate=0),
    )
    assert choice.amount == 500 + 9000 + 1250 + 100  # with the warm-up
    assert "100/s in 10 s, 500/s in 30 s" in choice.describe().description
    assert choice.describe().rate is None


def test_search_begins_gently_where_it_costs() -> None:
    assert choose(find_max=True).first_rate == 100
    elsewhere = choose(find_max=True, is_elsewhere=True)
    assert elsewhere.first_rate == 1
    assert elsewhere.amount is None
    assert elsewhere.length_s == 25 * 5
    assert choose(find_max=True, rate="30", duration="2s").load.duration_s == 2
    assert "highest rate" in elsewhere.describe().description


def test_frontier_is_a_search_with_more_probes() -> None:
    choice = choose(frontier="100ms,1ms", is_elsewhere=True, poisson=True)
    assert (choice.first_rate, choice.p99_limits_ms) == (1, (1, 100))
    assert choice.length_s == 40 * 5
    description = choice.describe()
    assert (description.model, description.rate) == ("frontier", None)
    assert "highest rates with p99 within 1 ms, 100 ms, Poisson" in description.description
    assert choose(frontier="3s,1ms").load.duration_s == 12
    with pytest.raises(WrongUsage, match="--frontier: ''"):
        choose(frontier="")


def test_probes_are_long_enough_for_the_answers_they_allow() -> None:
    slow = choose(find_max=True, slo=["p50=2s,p99=30s,errors=1%", "rps=5"])
    assert slow.load.duration_s == 120
    assert choose(find_max=True, slo=["p99=50ms"]).load.duration_s == 5
    assert choose(find_max=True, slo=["p99=30s"], duration="3s").load.duration_s == 3


@pytest.mark.parametrize("options", [{}, {"rate": "10/s"}, {"frontier": "1ms"}])
def test_more_processes_than_connections_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(WrongUsage, match="--processes 4 can't share --concurrency 2"):
        choose(processes=4, concurrency=2, **options)


def test_as_many_connections_as_processes_are_used_at_least() -> None:
    load = choose(processes=16).load
    assert isinstance(load, Closed)
    assert load.concurrency == 16


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"duration": "10"}, "--duration: '10' isn't a duration"),
        ({"duration": "0s"}, "--duration must be more than 0s"),
        ({"warm_up": "2d"}, "--warm-up must be .* at most 1d"),
        ({"rate": "fast"}, "--rate: 'fast' isn't a rate"),
        ({"rate": "0"}, "--rate: a rate is from 0.001/s"),
        ({"rate": "1/s", "requests": 100_000}, "take more than a day"),
        ({"stages": "10s"}, r"stage 1 \('10s'\) must be DURATION:RATE"),
        ({"stages": "10s:1,x:2"}, "stage 2: 'x' isn't a duration"),
        ({"stages": "10s:1,5s:2x"}, "stage 2: '2x' isn't a rate"),
        ({"stages": "10s:0"}, "every rate is 0"),
    ],
)
def test_what_cannot_be_read_is_named(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(WrongUsage, match=reason):
        choose(**options)


def test_warm_up_may_be_left_out() -> None:
    assert choose(warm_up="0s").warm_up_s == 0
    assert choose(requests=5, warm_up="250ms").warm_up_s == 0.25


@given(st.text())
def test_no_text_is_a_surprise(text: str) -> None:
    try:
        assert parse_rate(text) > 0
    except ValueError as exc:
        assert "rate" in str(exc)
    try:
        assert parse_stages(text)
    except WrongUsage as exc:
        assert str(exc).startswith("--stages:")


@given(st.floats(0.001, 1e6))
def test_rate_reads_what_is_written(rate: float) -> None:
    assert parse_rate(f"{rate:.6f}/s") == pytest.approx(rate, abs=1e-6)
    assert parse_rate(f"{rate * 60:.6f}/m") == pytest.approx(rate, abs=1e-6)


REPLAY = Replay(offsets_s=(0.0, 0.5, 2.0), bodies=(0, 1, 0))


def test_replay_has_the_arrivals_of_its_trace() -> None:
    choice = choose(replay=Path("a/trace.jsonl"), trace=REPLAY, concurrency=7)
    assert isinstance(choice.load, Replay)
    assert (choice.load.offsets_s, choice.load.max_in_flight) == (REPLAY.offsets_s, 7)
    description = choice.describe()
    assert (description.model, description.rate, description.concurrency) == ("replay", None, None)
    assert description.description == "replay of trace.jsonl, 3 requests in 2 s"


def test_all_requests_of_a_replay_are_counted_before_they_cost() -> None:
    trace: dict[str, Any] = {"replay": Path("t"), "trace": REPLAY, "repeat": 2}
    assert choose(is_elsewhere=True, **trace).amount == 6
    assert choose(warm_up="1s", **trace).amount == 6 + 2
