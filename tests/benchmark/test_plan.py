from __future__ import annotations

import pytest

from llm_proxy.benchmark.plan import (
    Closed,
    Open,
    Plan,
    Replay,
    Stage,
    Target,
    Workload,
    decode_plan,
    encode_plan,
)
from llm_proxy.secrets import Secret

TARGET = Target(base_url="https://a/b", keys=(Secret("sk-1"),), ca_file="c")
LOADS: list[Closed | Open] = [
    Closed(concurrency=3, requests=4),
    Open(stages=(Stage(duration_s=2, rate=5), Stage(duration_s=1, rate=0)), start_rate=1),
]


@pytest.mark.parametrize("load", LOADS)
def test_a_plan_survives_its_journey_secrets_included(load: Closed | Open) -> None:
    plan = Plan(targets=(TARGET, TARGET), workload=Workload(bodies=(b"\xff", b"")), load=load)
    assert decode_plan(encode_plan(plan)) == plan
    assert plan.is_paired


def test_a_plan_does_not_print_its_keys() -> None:
    plan = Plan(targets=(TARGET,), workload=Workload(), load=LOADS[0])
    assert "sk-1" not in repr(plan)
    assert not plan.is_paired


def test_an_open_load_knows_how_long_it_is() -> None:
    assert LOADS[1].duration_s == 3


@pytest.mark.parametrize(
    ("offsets_s", "duration_s"), [((0, 1, 2, 3), 4), ((0,), 0.001), ((0, 0), 0.001)]
)
def test_a_replay_lasts_until_a_mean_gap_after_its_last_arrival(
    offsets_s: tuple[float, ...], duration_s: float
) -> None:
    load = Replay(offsets_s=offsets_s, bodies=(0,) * len(offsets_s))
    assert load.duration_s == duration_s


def test_the_beginning_of_a_replay_has_an_arrival_at_least() -> None:
    load = Replay(offsets_s=(0, 1, 2), bodies=(7, 8, 9))
    assert load.until(1.5) == Replay(offsets_s=(0, 1), bodies=(7, 8))
    assert load.until(0) == Replay(offsets_s=(0,), bodies=(7,))
