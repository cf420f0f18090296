from __future__ import annotations

from llm_proxy.benchmark.fidelity import MOST_BODIES, FidelityTally
from llm_proxy.benchmark.plan import DIRECT, PROXIED
from llm_proxy.benchmark.report import Fidelity

Answers = list[tuple[int, int]]  # body and digest


def verdict_of(*, proxied: Answers, direct: Answers) -> Fidelity:
    tally = FidelityTally()
    tally.add(PROXIED, proxied)
    tally.add(DIRECT, direct)
    return tally.verdict()


def test_the_same_bytes_are_equal() -> None:
    found = verdict_of(proxied=[(0, 7), (0, 7), (1, 8)], direct=[(0, 7), (1, 8)])
    assert found == Fidelity(verdict="equal", compared=3)


def test_one_other_answer_is_different() -> None:
    found = verdict_of(proxied=[(0, 7), (1, 8), (1, 9)], direct=[(0, 7), (1, 8)])
    assert (found.verdict, found.compared, found.different) == ("different", 3, 1)
    assert found.bodies == (1,)


def test_incomplete_answers_do_not_count() -> None:
    found = verdict_of(proxied=[(0, 7), (0, 0)], direct=[(0, 7), (0, 0)])
    assert found == Fidelity(verdict="equal", compared=1)


def test_an_upstream_that_never_repeats_itself_is_not_comparable() -> None:
    found = verdict_of(proxied=[(0, 1), (0, 2)], direct=[(0, 3), (0, 4)])
    assert (found.verdict, found.compared) == ("not comparable", 0)
    assert "never repeats" in (found.reason or "")


def test_a_body_the_upstream_varies_says_nothing_but_others_do() -> None:
    found = verdict_of(proxied=[(0, 1), (1, 9), (1, 8)], direct=[(0, 3), (0, 4), (1, 8), (1, 8)])
    assert (found.verdict, found.compared, found.bodies) == ("different", 2, (1,))


def test_answers_asked_for_once_may_differ_by_themselves() -> None:
    found = verdict_of(proxied=[(0, 1), (1, 2)], direct=[(0, 3), (1, 4)])
    assert found.verdict == "not comparable"
    assert "more often" in (found.reason or "")


def test_an_upstream_seen_to_repeat_itself_is_trusted_with_single_answers() -> None:
    found = verdict_of(proxied=[(0, 7), (1, 9)], direct=[(0, 7), (1, 8)])
    assert (found.verdict, found.bodies) == ("different", (1,))


def test_nothing_on_one_side_is_not_comparable() -> None:
    found = verdict_of(proxied=[(0, 7)], direct=[(0, 0), (1, 8)])
    assert found.verdict == "not comparable"
    assert "both sides" in (found.reason or "")


def test_ten_bodies_are_named_at_most() -> None:
    bodies = range(30)
    found = verdict_of(
        proxied=[(body, 2) for body in bodies], direct=[(body, 1) for body in bodies] * 2
    )
    assert (found.different, found.bodies) == (30, tuple(range(10)))


def test_memory_is_bounded_in_bodies_and_digests() -> None:
    tally = FidelityTally()
    tally.add(PROXIED, [(0, digest) for digest in range(1, 1000)])
    tally.add(DIRECT, [(0, 1)] * 2)
    tally.add(PROXIED, [(body, 5) for body in range(1, MOST_BODIES + 5)])
    tally.add(DIRECT, [(body, 5) for body in range(1, MOST_BODIES + 5)])
    found = tally.verdict()
    assert found.compared == 999 + MOST_BODIES - 1
    assert (found.different, found.bodies) == (998, (0,))
