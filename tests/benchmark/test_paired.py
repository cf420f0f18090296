from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.paired import (
    MOST_PAIRS,
    Differences,
    added,
    blocks_of,
    bootstrap_95,
    sign_flip_p,
)
from llm_proxy.benchmark.report import Added
from llm_proxy.benchmark.samples import TICKS_PER_MS

EFFECT_MS = 5.0
TRIALS = 200


def differences_of(random: Random, *, pairs: int, effect_ms: float) -> list[int]:
    """Of a target that drifts, whose noise comes in bursts and now and then is huge."""
    found, burst = [], 0.0
    for number in range(pairs):
        base = 5 + 3 * math.sin(6 * number / pairs) + 4 * number / pairs
        burst = 0.95 * burst + random.gauss(0, 0.3)
        noise = 1 + abs(burst) / 5
        found.append(
            int(
                (_latency(random, base * noise) + effect_ms - _latency(random, base * noise))
                * TICKS_PER_MS
            )
        )
    return found


def _latency(random: Random, base: float) -> float:
    outlier = random.paretovariate(1.5) * 5 if random.random() < 0.03 else 0.0
    return base * random.lognormvariate(0, 0.25) + outlier


def trials(effect_ms: float) -> list[Added]:
    random = Random(7)
    found = []
    for seed in range(TRIALS):
        differences = differences_of(random, pairs=100, effect_ms=effect_ms)
        one = added(differences, seed=seed, resamples=300, flips=300)
        assert one is not None
        found.append(one)
    return found


def test_no_effect_is_found_as_often_as_chance_says() -> None:
    found = trials(0.0)
    significant = sum(one.p_value < 0.05 for one in found) / TRIALS
    covering = sum(one.ci95[0] <= 0 <= one.ci95[1] for one in found) / TRIALS
    assert 0.02 <= significant <= 0.08
    assert 0.92 <= covering <= 0.98


def test_five_milliseconds_are_found_within_their_interval() -> None:
    found = trials(EFFECT_MS)
    assert sum(one.is_found for one in found) / TRIALS >= 0.98
    assert 0.92 <= sum(one.ci95[0] <= EFFECT_MS <= one.ci95[1] for one in found) / TRIALS <= 0.98


def test_many_blocks_are_as_honest_as_few() -> None:
    random = Random(3)
    found = [
        added(differences_of(random, pairs=900, effect_ms=0), seed=seed, resamples=200, flips=200)
        for seed in range(40)
    ]
    assert sum(one.is_found for one in found if one) <= 6


def test_the_distribution_is_of_the_single_differences() -> None:
    one = added([ms * TICKS_PER_MS for ms in range(-50, 51)], seed=1)
    assert one is not None
    assert (one.count, one.min, one.mean, one.p50, one.max) == (101, -50, 0, 0, 50)
    assert (one.p75, one.p99, one.p99_9, one.blocks) == (25, 49, 50, 10)


def test_no_pairs_have_no_difference() -> None:
    assert added([], seed=1) is None


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=35))
def test_too_few_pairs_find_nothing(differences: list[int]) -> None:
    one = added(differences, seed=1)
    assert one is not None
    assert one.p_value == 1.0
    assert one.ci95[0] <= 0 <= one.ci95[1]
    assert not one.is_found


def test_the_fewest_pairs_that_can_find_something() -> None:
    one = added([EFFECT_MS * TICKS_PER_MS] * 36, seed=1)  # type: ignore[list-item]
    assert one is not None
    assert (one.blocks, one.typical, one.ci95) == (6, EFFECT_MS, (4.999, 5.001))
    assert one.p_value == pytest.approx(2 / 2**6, abs=1e-5)
    assert one.is_found


def test_the_same_seed_gives_the_same_answer() -> None:
    differences = differences_of(Random(1), pairs=400, effect_ms=0.3)
    assert added(differences, seed=4) == added(differences, seed=4)


@given(st.integers(1, 5000))
def test_blocks_hold_every_pair_once(pairs: int) -> None:
    blocks = blocks_of(range(pairs))
    assert [pair for block in blocks for pair in block] == list(range(pairs))
    assert 1 <= len(blocks) <= 200
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_random_flips_agree_with_all_flips() -> None:
    values = [Random(2).randrange(-50, 100) for _ in range(13)]
    exact = sign_flip_p(values, Random(1), 1)
    # Six more that decide nothing: too many to try all.
    assert sign_flip_p([*values, *[0] * 6], Random(1), 20_000) == pytest.approx(exact, abs=0.02)


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    random = Random(5)
    values = [round(random.gauss(1000, 100)) for _ in range(150)]
    low, high = bootstrap_95(values, Random(1), 2000)
    assert low == pytest.approx(sum(values) / 150 - 16, abs=3)
    assert high == pytest.approx(sum(values) / 150 + 16, abs=3)


def test_of_too_many_pairs_a_seeded_half_is_kept_in_order() -> None:
    kept = Differences(seed=1)
    for start in range(0, 3 * MOST_PAIRS, 50_000):
        kept.extend(range(start, start + 50_000))
    assert MOST_PAIRS / 2 < len(kept.values) <= MOST_PAIRS
    assert list(kept.values) == sorted(kept.values)
    # Spread over the whole run, and over even and odd pairs.
    assert sum(kept.values) / len(kept.values) == pytest.approx(1.5 * MOST_PAIRS, rel=0.02)
    assert sum(value % 2 for value in kept.values) / len(kept.values) == pytest.approx(
        0.5, abs=0.01
    )
    again = Differences(seed=1)
    for start in range(0, 3 * MOST_PAIRS, 50_000):
        again.extend(range(start, start + 50_000))
    assert again.values == kept.values


@pytest.mark.parametrize(("ticks", "is_found"), [(9, False), (-9, False), (12, True), (-12, True)])
def test_what_the_generator_itself_may_add_is_never_found(ticks: int, is_found: bool) -> None:
    steady = added([ticks] * 1000, seed=1)
    assert steady is not None
    assert steady.is_found is is_found
    assert steady.typical == ticks / TICKS_PER_MS
