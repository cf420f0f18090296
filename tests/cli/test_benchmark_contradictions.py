from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_proxy.cli.benchmark_contradictions import flag, refuse_contradictions
from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import WrongUsage

URL = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("options", "one", "other"),
    [
        ({"mock": True, "base_url": URL}, "--mock", "--base-url"),
        ({"mock": True, "token": ["x"]}, "--mock", "--token"),
        ({"base_url": URL, "token": ["x"], "token_env": "X"}, "--token", "--token-env"),
        ({"data": "{}", "prompts": Path("x")}, "--data", "--prompts"),
        ({"data": "{}", "model": "x"}, "--data", "--model"),
        ({"stages": "1s:1", "rate": "1"}, "--stages", "--rate"),
        ({"find_max": True, "slo": ["p99=1s"], "repeat": 2}, "--find-max", "--repeat"),
        ({"frontier": "1ms", "find_max": True, "slo": ["p99=1s"]}, "--frontier", "--find-max"),
        ({"frontier": "1ms", "stages": "1s:1"}, "--frontier", "--stages"),
        ({"frontier": "1ms", "requests": 5}, "--frontier", "--requests"),
        ({"frontier": "1ms", "direct_url": URL, "base_url": URL}, "--frontier", "--direct-url"),
        ({"frontier": "1ms", "repeat": 2}, "--frontier", "--repeat"),
        ({"csv": Path("x"), "html": Path("./x")}, "--csv", "--html"),
        ({"replay": Path("x"), "rate": "1"}, "--replay", "--rate"),
        ({"replay": Path("x"), "make_prompts": "9"}, "--replay", "--make-prompts"),
        ({"make_prompts": "9", "data": "x"}, "--make-prompts", "--data"),
        ({"tokens": 2, "base_url": URL}, "--tokens", "--base-url"),
        (
            {"base_url": URL, "data": "@-", "token": ["-"]},
            "--data @-",
            "--token -",
        ),
    ],
)
def test_options_that_exclude_each_other_are_both_named(
    options: dict[str, Any], one: str, other: str
) -> None:
    with pytest.raises(WrongUsage, match=f"{one} and {other} contradict each other: .") as caught:
        refuse_contradictions(Given(**options))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "one", "others"),
    [
        ({"find_max": True}, "--find-max", "--slo"),
        ({"poisson": True}, "--poisson", "--rate or --stages or --find-max or --frontier"),
        ({"direct_key_env": "KEY"}, "--direct-key-env", "--direct-url"),
        ({"direct_url": URL}, "--direct-url", "--base-url"),
        ({"token": ["x"]}, "--token", "--base-url"),
        ({"pid": 1}, "--pid", "--base-url"),
        ({"speed": 2.0}, "--speed", "--replay"),
        ({"max_regression": "p99=1%"}, "--max-regression", "--compare"),
    ],
)
def test_option_that_means_nothing_alone_names_what_it_needs(
    options: dict[str, Any], one: str, others: str
) -> None:
    with pytest.raises(WrongUsage, match=f"{one} needs {others}: ."):
        refuse_contradictions(Given(**options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mock": True, "concurrency": 10, "tokens": 2},
        {"replay": Path("x"), "speed": 2.0, "duration": "1m", "repeat": 2},
        {"base_url": URL, "token": ["a", "-"], "data": "{}"},
        {"find_max": True, "slo": ["p99=1s"], "rate": "5", "duration": "1s", "poisson": True},
        {"csv": Path("x"), "html": Path("y")},
    ],
)
def test_what_goes_together_passes(options: dict[str, Any]) -> None:
    refuse_contradictions(Given(**options))


def test_options_are_named_as_they_are_written() -> None:
    assert flag("max_error_rate") == "--max-error-rate"


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_that_no_plan_can_carry_is_refused(seed: int) -> None:
    with pytest.raises(WrongUsage, match=r"--seed must be between 0 and 2\^63 - 1, not -?\d+"):
        refuse_contradictions(Given(seed=seed))


def test_the_largest_seed_is_accepted() -> None:
    refuse_contradictions(Given(seed=(1 << 63) - 1))
