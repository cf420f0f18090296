from __future__ import annotations

from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.pair_tally import PairTally
from llm_proxy.benchmark.plan import DIRECT, PROXIED
from llm_proxy.benchmark.samples import CUT
from tests.benchmark.framing import MS, Row, row, samples_of


def tally_of(*frames: tuple[int, list[Row]]) -> PairTally:
    """Each of a process."""
    tally = PairTally(seed=1)
    for process, rows in frames:
        samples = samples_of(rows)
        for lane in (PROXIED, DIRECT):
            tally.add(process, lane, LaneRows(samples, lane))
        tally.join(process)
    return tally


def pair(number: int, *, added: int, **changes: int) -> list[Row]:
    return [
        row(PROXIED, pair=number, service=10 * MS + added, **changes),
        row(DIRECT, pair=number, service=10 * MS),
    ]


def test_differences_are_of_latency_with_lateness() -> None:
    tally = tally_of((0, [row(pair=0, late=3 * MS), row(DIRECT, pair=0, late=MS)]))
    found = tally.latency()
    assert found is not None
    assert (found.count, found.p50) == (1, 2.0)


def test_the_same_number_of_two_processes_is_two_pairs() -> None:
    tally = tally_of(
        (0, [row(pair=0, service=12 * MS)]),
        (1, [row(DIRECT, pair=0, service=10 * MS)]),
        (1, [row(pair=0, service=15 * MS)]),
    )
    found = tally.latency()
    assert found is not None
    assert (found.count, found.p50) == (1, 5.0)


def test_the_partner_of_a_failed_request_is_dropped() -> None:
    rows = [*pair(0, added=MS, outcome=CUT), *pair(1, added=2 * MS)]
    found = tally_of((0, rows)).latency()
    assert found is not None
    assert (found.count, found.p50) == (1, 2.0)


def test_tokens_are_compared_where_both_streams_have_them() -> None:
    both = [
        row(PROXIED, pair=0, first_token=5 * MS, gap=2 * MS),
        row(DIRECT, pair=0, first_token=4 * MS, gap=MS),
    ]
    one = [row(PROXIED, pair=1, first_token=9 * MS, gap=9 * MS), row(DIRECT, pair=1)]
    tally = tally_of((0, both + one))
    ttft, inter_token = tally.ttft(), tally.inter_token()
    assert ttft is not None
    assert inter_token is not None
    assert (ttft.count, ttft.p50, inter_token.count, inter_token.p50) == (1, 1.0, 1, 1.0)


def test_plain_answers_have_no_token_differences() -> None:
    tally = tally_of((0, pair(0, added=MS)))
    assert tally.ttft() is None
    assert tally.inter_token() is None
