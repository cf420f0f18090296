from __future__ import annotations

import pytest

from llm_proxy.benchmark.plan import (
    Closed,
    Open,
    Plan,
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
