from __future__ import annotations

import pytest

from llm_proxy.benchmark.keeping_pace import shortfall
from llm_proxy.benchmark.plan import Open, Stage
from llm_proxy.benchmark.report import Second


def series(
    *requests: int, length_s: float = 1.0, in_flight: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
) -> list[Second]:
    """What ended, slice by slice, and how many were in flight then."""
    return [
        Second(
            at_s=number * length_s,
            length_s=length_s,
            requests=count,
            errors=0,
            requests_per_second=count / length_s,
            p50_ms=None,
            p99_ms=None,
            in_flight=in_flight[number],
        )
        for number, count in enumerate(requests)
    ]


def load(rate: float, duration_s: float = 4.0, *, is_poisson: bool = False) -> Open:
    return Open(
        stages=(Stage(duration_s=duration_s, rate=rate),),
        start_rate=rate,
        arrivals="poisson" if is_poisson else "constant",
    )


def test_as_many_answers_as_arrivals_keep_pace() -> None:
    assert shortfall(series(100, 100, 100, 100), load(100)) == ""


def test_slow_answers_keep_pace_once_they_come() -> None:
    assert shortfall(series(0, 0, 100, 100, 100, 100), load(100)) == ""


def test_what_is_answered_after_the_end_counts_for_nothing() -> None:
    reason = shortfall(series(100, 100, 100, 100, 100, 100), load(150))
    assert reason.startswith("only 100/s of 150/s were answered in the second half")


@pytest.mark.parametrize(("ended", "keeps"), [(94, True), (85, False)])
def test_a_little_less_is_jitter(ended: int, keeps: bool) -> None:
    assert (not shortfall(series(0, 0, ended, ended), load(100))) is keeps


def test_poisson_arrivals_may_be_fewer_by_chance() -> None:
    assert shortfall(series(0, 0, 80, 80), load(100))
    assert not shortfall(series(0, 0, 80, 80), load(100, is_poisson=True))


def test_of_poisson_arrivals_those_that_pile_up_are_counted() -> None:
    """At 10/s of 13/s, which could be too few arrivals by chance, were it not for the rest."""
    few = load(13, is_poisson=True)
    assert not shortfall(series(10, 10, 10, 10), few)
    assert not shortfall(series(10, 10, 10, 10, in_flight=(3, 3, 3, 3)), few)
    assert shortfall(series(10, 10, 10, 10, in_flight=(3, 6, 9, 12)), few)


def test_the_last_slice_may_hold_a_moment_more() -> None:
    run = series(25, 25, 25, 26, length_s=0.25)
    assert shortfall(run, load(100, 1.0)) == ""


def test_a_run_too_short_for_slices_is_not_judged() -> None:
    assert shortfall(series(3, length_s=0.2), load(100, 0.2)) == ""
