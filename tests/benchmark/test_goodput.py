from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.goodput import GoodputTally, parse_goodput
from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.plan import DIRECT, PROXIED
from llm_proxy.benchmark.samples import CANCELLED, NONE, SERVER_ERROR
from llm_proxy.errors import WrongUsage
from tests.benchmark.framing import MS, Row, row, samples_of


def good(limits: str, *rows: Row, lane: int = PROXIED) -> int:
    tally = GoodputTally(parse_goodput(limits))
    tally.add(LaneRows(samples_of(rows), lane))
    goodput = tally.goodput(eligible=len(rows), rate_s=1.0)
    assert goodput is not None
    return goodput.requests


def test_limits_are_read_and_named() -> None:
    limits = parse_goodput("latency=50ms, TTFT=1.5s,inter_token=250us")
    assert [limit.name for limit in limits] == [
        *("latency<=50ms", "ttft<=1500ms", "inter_token<=0.25ms")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency", "'latency': a limit is written FIGURE=TIME, like latency=50ms"),
        ("p99=50ms", "'p99' isn't a time that a request has by itself; there are latency, service"),
        ("ttft=95%", "'95%' isn't a duration"),
        ("ttft=1s,ttft=2s", "ttft has a limit already"),
        ("latency=0ms", "give more than 0ms"),
        ("", "a limit is written"),
    ],
)
def test_what_is_no_limit_is_refused(text: str, message: str) -> None:
    with pytest.raises(WrongUsage, match=f"^--goodput: .*{message}"):
        parse_goodput(text)


@given(st.text(max_size=40))
def test_no_text_is_a_surprise(text: str) -> None:
    try:
        assert parse_goodput(text)
    except WrongUsage as exc:
        assert str(exc).startswith("--goodput: ")


def test_a_request_is_good_up_to_its_limit_to_the_tick() -> None:
    rows = [row(service=ticks) for ticks in (2999, 3000, 3001)]
    assert good("latency=0.3ms", *rows) == 2
    assert good("latency=0.3ms", *rows[:2]) == 2


def test_latency_counts_from_when_it_was_due_and_service_does_not() -> None:
    late = row(late=45 * MS)
    assert good("latency=50ms", late, row()) == 1
    assert good("service=50ms", late, row()) == 2


def test_every_limit_must_be_met_by_the_same_request() -> None:
    slow_start = row(first_token=300 * MS, service=400 * MS)
    slow_end = row(first_token=10 * MS, service=900 * MS)
    fine = row(first_token=10 * MS, service=400 * MS)
    assert good("latency=500ms,ttft=200ms", slow_start, slow_end, fine) == 1


def test_failed_requests_are_not_good_however_fast() -> None:
    assert good("latency=1s", row(outcome=SERVER_ERROR), row(outcome=CANCELLED), row()) == 1


def test_an_answer_without_the_figure_misses_its_limit() -> None:
    said = row(first_token=10 * MS)
    assert good("ttft=200ms", row(first_token=NONE), said) == 1
    assert good("first_byte=200ms", row(first_byte=NONE), row(first_byte=MS)) == 1


def test_a_stream_of_one_token_keeps_no_one_waiting_for_a_second() -> None:
    one_token = row(first_token=10 * MS)
    silent = row(first_token=NONE)
    slow = row(first_token=10 * MS, second_token=500 * MS, gap=490 * MS)
    assert good("inter_token=20ms", one_token, silent, slow) == 1
    assert good("second_token=20ms", one_token, silent, slow) == 1


def test_each_lane_counts_its_own() -> None:
    rows = [row(), row(DIRECT), row(DIRECT, service=90 * MS)]
    assert good("latency=50ms", *rows) == 1
    assert good("latency=50ms", *rows, lane=DIRECT) == 1


def test_the_share_is_whole_only_if_none_missed() -> None:
    tally = GoodputTally(parse_goodput("latency=50ms"))
    tally.add(LaneRows(samples_of([row()] * 5), PROXIED))
    whole = tally.goodput(eligible=5, rate_s=2.0)
    assert whole is not None
    assert (whole.share, whole.requests_per_second) == (1.0, 2.5)
    most = GoodputTally(parse_goodput("latency=50ms"))
    most.add(LaneRows(samples_of([row()] * 2), PROXIED))
    goodput = most.goodput(eligible=3, rate_s=0.0)
    assert goodput is not None
    assert (goodput.share, goodput.requests_per_second) == (0.666666, 0.0)


def test_no_requests_are_no_good_ones_and_no_limits_no_goodput() -> None:
    nothing = GoodputTally(parse_goodput("latency=50ms")).goodput(eligible=0, rate_s=1.0)
    assert nothing is not None
    assert (nothing.requests, nothing.share) == (0, 0.0)
    assert GoodputTally(()).goodput(eligible=3, rate_s=1.0) is None


@given(st.lists(st.tuples(st.integers(-1, 9), st.integers(-1, 9), st.integers(0, 9)), min_size=1))
def test_it_is_what_a_loop_over_the_requests_would_count(rows: list[tuple[int, int, int]]) -> None:
    expected = sum(
        service <= 5 and 0 <= first <= 4 and (0 <= second <= 6 or (second < 0 <= first))
        for first, second, service in rows
    )
    made = [
        row(first_token=first, second_token=second, service=service)
        for first, second, service in rows
    ]
    assert good("service=0.5us,ttft=0.4us,second_token=0.6us", *made) == expected
