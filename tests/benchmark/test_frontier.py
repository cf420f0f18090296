from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.frontier import (
    MOST_LIMITS,
    frontier,
    keeps_p99,
    limit_name,
    limit_text,
    parse_limits,
)
from llm_proxy.benchmark.rate_search import RateSearch
from llm_proxy.benchmark.report import Frontier, Probe
from llm_proxy.errors import WrongUsage
from tests.benchmark.reports import make_probe

LIMITS = (1.0, 10.0, 50.0)


async def search(p99_at: dict[float, float]) -> Frontier:
    """A target with steps: the p99 of the highest named rate at or below."""

    async def probe(rate: float, limit: int) -> Probe:
        return make_probe(rate, p99_ms=p99_at[max(one for one in p99_at if one <= rate)])

    rates = RateSearch(probe, [keeps_p99(limit) for limit in LIMITS], most_probes=40)
    await rates.run(100)
    return frontier(rates, LIMITS)


@pytest.mark.anyio
async def test_points_carry_the_figures_of_their_windows() -> None:
    found = await search({0: 2.0, 301: 30.0, 601: 900.0})
    none, middle, loose = found.points
    assert (none.rate, none.requests_per_second, none.latency_ms) == (None, None, None)
    assert (middle.rate, middle.confirmed, middle.is_noisy) == (300, True, False)
    assert middle.requests_per_second == pytest.approx(300 * 0.999)
    assert middle.latency_ms is not None and loose.latency_ms is not None
    assert (middle.latency_ms.p99, loose.latency_ms.p99) == (2.0, 30.0)
    count = len(found.probes)
    assert found.note == f"Confirmed: the rates of 2 of 3 limits, with {count} probes (40 at most)."


@pytest.mark.anyio
async def test_noise_is_said_of_the_point_and_of_the_whole() -> None:
    found = await search({0: 2.0, 100: 20.0, 150: 2.0, 601: 900.0})
    _, middle, loose = found.points
    assert (middle.is_noisy, loose.is_noisy) == (True, False)
    assert "Noise: lower rates missed it (100/s)." in middle.note
    assert found.note.endswith("there was noise.")


def test_other_limits_are_not_made_up_for_by_speed() -> None:
    keeps = keeps_p99(10)
    assert keeps(make_probe(100, p99_ms=10.0))
    assert not keeps(make_probe(100, p99_ms=10.1))
    assert not keeps(make_probe(100, p99_ms=1.0, passed=False))
    assert not keeps(make_probe(100, p99_ms=None))


def test_limits_are_sorted() -> None:
    assert parse_limits("100ms, 1ms,250us,1s") == (0.25, 1, 100, 1000)
    assert (limit_name(0.25), limit_text(1500)) == ("p99<=0.25ms", "1,500 ms")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "--frontier: '' isn't a duration"),
        ("1ms,,5ms", "--frontier: '' isn't a duration"),
        ("5", "write it like 30s, 5m, 24h or 1h30m, several like 1ms,10ms,100ms"),
        ("0ms", "a limit must be more than 0ms and at most 1h, not '0ms'"),
        ("2h", "at most 1h, not '2h'"),
        ("1s,5ms,1000ms", "--frontier has '1000ms' twice"),
        (",".join(f"{i}ms" for i in range(1, MOST_LIMITS + 2)), "at most 10 limits, not 11"),
    ],
)
def test_wrong_limits_are_refused(text: str, reason: str) -> None:
    with pytest.raises(WrongUsage, match=reason):
        parse_limits(text)


@given(st.text(max_size=40))
def test_limits_are_ascending_or_refused(text: str) -> None:
    try:
        limits_ms = parse_limits(text)
    except WrongUsage:
        return
    assert list(limits_ms) == sorted(set(limits_ms))
