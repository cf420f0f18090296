from __future__ import annotations

import pytest

from llm_proxy.benchmark.goodput import parse_goodput
from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.plan import PROXIED
from llm_proxy.benchmark.report import Goodput, Side
from llm_proxy.benchmark.samples import (
    BROKEN_STREAM,
    CANCELLED,
    CLIENT_ERROR,
    CONNECT,
    CUT,
    SERVER_ERROR,
)
from llm_proxy.benchmark.side_tally import SideTally
from tests.benchmark.framing import MS, SECOND, Row, row, samples_of


def tally_of(*frames: list[Row], is_stream: bool = False) -> SideTally:
    tally = SideTally(is_stream=is_stream)
    for rows in frames:
        tally.add(LaneRows(samples_of(rows), PROXIED))
    return tally


def side_of(*frames: list[Row], is_stream: bool = False, unsent: int = 0) -> Side:
    return tally_of(*frames, is_stream=is_stream).side(2.0, unsent=unsent)


def test_errors_are_counted_apart_and_by_kind() -> None:
    side = side_of(
        [
            *[row()] * 6,
            row(outcome=CONNECT, status=0),
            row(outcome=CLIENT_ERROR, status=429, service=900 * MS),
            row(outcome=SERVER_ERROR, status=503),
            row(outcome=CANCELLED),
        ]
    )
    assert (side.requests, side.errors, side.cancelled, side.error_rate) == (10, 3, 1, 0.3)
    assert side.error_kinds == {"connect": 1, "4xx": 1, "5xx": 1}
    assert side.statuses == {"2xx": 7, "4xx": 1, "5xx": 1}
    assert side.status_codes == {"200": 7, "429": 1, "503": 1}
    assert side.requests_per_second == 3.0
    assert side.latency_ms is not None
    assert (side.latency_ms.count, side.latency_ms.max) == (6, 10.0)


def test_latency_is_corrected_and_service_is_beside_it() -> None:
    side = side_of([row(late=90 * MS)], [row()])
    assert side.latency_ms is not None
    assert side.service_ms is not None
    assert (side.latency_ms.min, side.latency_ms.max) == (10.0, 100.0)
    assert (side.service_ms.count, side.service_ms.max) == (2, 10.0)


def test_nothing_answered_has_no_times() -> None:
    side = side_of([row(outcome=CONNECT, status=0)])
    assert side.latency_ms is None
    assert side.histogram is None
    assert side.cdf == ()
    assert side.first_byte_ms is None
    assert side.streams is None
    assert side.server_timing is None
    assert side.statuses == {}


def test_no_requests_at_all_are_no_error() -> None:
    side = SideTally(is_stream=False).side(0.0)
    assert (side.requests, side.error_rate, side.requests_per_second) == (0, 0.0, 0.0)


def test_arrivals_never_sent_are_errors() -> None:
    side = side_of([row()] * 3, unsent=1)
    assert (side.requests, side.errors, side.error_rate) == (4, 1, 0.25)
    assert side.error_kinds == {"unsent": 1}


def test_bytes_are_those_of_all_requests() -> None:
    side = side_of([row(received=7, sent=3), row(outcome=CUT, received=5, sent=3)])
    assert (side.bytes_received, side.bytes_sent) == (12, 6)


def test_the_first_byte_is_of_answers_with_a_body() -> None:
    side = side_of([row(first_byte=4 * MS), row()])
    assert side.first_byte_ms is not None
    assert (side.first_byte_ms.count, side.first_byte_ms.p50) == (1, 4.0)


def test_server_timing_leaves_the_rest_unexplained() -> None:
    side = side_of([row(proxy=MS, upstream=6 * MS), row()])
    timing = side.server_timing
    assert timing is not None
    assert timing.answers == 1
    assert timing.proxy_ms.p50 == 1.0
    assert timing.upstream_ms.p50 == pytest.approx(6.0, rel=1e-3)
    assert timing.unexplained_ms.p50 == pytest.approx(3.0, rel=1e-3)
    assert (timing.seen, timing.excessive) == ("service", 0)
    assert timing.seen_ms is not None
    assert (timing.seen_ms.count, timing.seen_ms.max) == (1, 10.0)


def test_the_parts_of_the_time_add_up_to_what_was_seen() -> None:
    timing = side_of(
        [row(proxy=i * MS // 7, upstream=i * MS // 3, service=i * MS) for i in range(1, 90)]
    ).server_timing
    assert timing is not None and timing.seen_ms is not None
    parts = timing.proxy_ms.mean + timing.upstream_ms.mean + timing.unexplained_ms.mean
    assert parts == pytest.approx(timing.seen_ms.mean, rel=1e-3)


def test_rounding_leaves_nothing_below_zero_unexplained() -> None:
    side = side_of([row(proxy=5 * MS, upstream=6 * MS), row(proxy=MS, upstream=MS)])
    assert side.server_timing is not None
    assert side.server_timing.unexplained_ms.min == 0.0
    assert side.server_timing.unexplained_ms.max == 8.0
    assert side.server_timing.excessive == 1


def test_of_a_stream_the_timing_is_set_against_the_first_byte() -> None:
    stream = row(proxy=MS, upstream=2 * MS, first_byte=4 * MS, service=SECOND, tokens=3)
    side = side_of([stream], is_stream=True)
    assert side.server_timing is not None
    assert side.server_timing.unexplained_ms.max == 1.0
    assert side.server_timing.seen == "first byte"
    assert side.server_timing.seen_ms is not None
    assert side.server_timing.seen_ms.max == 4.0


def test_goodput_leaves_out_what_was_cancelled_and_counts_what_was_not_sent() -> None:
    tally = SideTally(is_stream=False, goodput=parse_goodput("latency=50ms"))
    rows = [*[row()] * 5, row(service=90 * MS), row(outcome=SERVER_ERROR), row(outcome=CANCELLED)]
    tally.add(LaneRows(samples_of(rows), PROXIED))
    assert tally.side(2.0, unsent=3).goodput == Goodput(
        limits=("latency<=50ms",), requests=5, share=0.5, requests_per_second=2.5
    )


def test_streams_have_their_own_figures() -> None:
    tally = tally_of(
        [
            row(
                **{"first_token": 20 * MS, "second_token": 30 * MS, "last_token": 520 * MS},
                **{"tokens": 11, "stalls": 2, "service": SECOND},
            ),
            row(first_token=40 * MS, second_token=50 * MS, tokens=1, service=41 * MS),
            row(outcome=CUT, first_token=MS, tokens=4),
            row(outcome=BROKEN_STREAM, tokens=0),
            row(outcome=CANCELLED, tokens=4),
        ],
        is_stream=True,
    )
    tally.add_gaps([MS, 3 * MS])
    streams = tally.side(2.0).streams
    assert streams is not None
    assert (streams.tokens, streams.tokens_per_second) == (20, 10.0)
    assert (streams.stalls, streams.stalled_streams) == (2, 1)
    assert (streams.cut, streams.broken, streams.cancelled) == (1, 1, 1)
    assert streams.ttft_ms is not None
    assert (streams.ttft_ms.count, streams.ttft_ms.max) == (2, 40.0)
    assert streams.second_token_ms is not None
    assert streams.second_token_ms.min == 30.0
    assert streams.inter_token_ms is not None
    assert streams.inter_token_ms.mean == 2.0
    # 10 tokens after the first in 0.5 s, however late the end; one token alone has no rate.
    rates = streams.tokens_per_second_per_stream
    assert rates is not None
    assert rates.count == 1
    assert rates.mean == pytest.approx(20, rel=1e-3)


def test_a_stream_that_came_in_one_piece_has_no_rate() -> None:
    stream = row(first_token=MS, second_token=MS, last_token=MS, tokens=9, service=MS + 30)
    streams = side_of([stream], is_stream=True).streams
    assert streams is not None
    assert streams.tokens_per_second_per_stream is None


def test_a_stream_nobody_asked_for_is_one_all_the_same() -> None:
    assert side_of([row(first_token=MS, tokens=2)]).streams is not None


def test_streams_that_all_failed_are_still_streams() -> None:
    streams = side_of([row(outcome=CUT)], is_stream=True).streams
    assert streams is not None
    assert (streams.cut, streams.ttft_ms, streams.tokens) == (1, None, 0)
