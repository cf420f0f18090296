from __future__ import annotations

import math

import pytest

from llm_proxy.benchmark.mock_options import Freeze, MockOptions
from llm_proxy.errors import ConfigError
from llm_proxy.secrets import Secret


@pytest.mark.parametrize("pace", [-1.0, math.nan, math.inf])
def test_a_pace_that_cannot_be_kept_is_refused(pace: float) -> None:
    with pytest.raises(ConfigError, match="tokens per second must be 0 or a positive number"):
        MockOptions(tokens_per_second=pace)


@pytest.mark.parametrize("latency", [-0.1, 601.0, math.nan])
def test_a_latency_out_of_bounds_is_refused(latency: float) -> None:
    with pytest.raises(ConfigError, match="between 0s and 600s"):
        MockOptions(latency_s=latency)


def test_an_empty_key_is_refused_rather_than_matched_by_everyone() -> None:
    with pytest.raises(ConfigError, match="API key is empty"):
        MockOptions(api_key=Secret(""))


def test_a_negative_history_is_refused() -> None:
    with pytest.raises(ConfigError, match="history must be 0"):
        MockOptions(history=-1)


@pytest.mark.parametrize("jitter", [-0.1, 601.0, math.nan])
def test_a_jitter_out_of_bounds_is_refused(jitter: float) -> None:
    with pytest.raises(ConfigError, match="the jitter must be between 0s and 600s"):
        MockOptions(jitter_s=jitter)


@pytest.mark.parametrize(
    ("every_s", "for_s"), [(1, 0), (1, 1), (1, 2), (601, 1), (math.nan, 1), (1, -1)]
)
def test_a_freeze_that_never_or_always_is_there_is_refused(every_s: float, for_s: float) -> None:
    with pytest.raises(ConfigError, match="a freeze must last longer than 0s and shorter"):
        Freeze(every_s=every_s, for_s=for_s)


@pytest.mark.parametrize(
    ("elapsed_s", "left_s"),
    [(0, 0), (0.5, 0), (9.9, 0), (10, 1), (10.25, 0.75), (11, 0), (19.9, 0), (20.5, 0.5)],
)
def test_a_freeze_comes_every_so_often_but_not_at_the_start(
    elapsed_s: float, left_s: float
) -> None:
    assert Freeze(every_s=10, for_s=1).left_s(elapsed_s) == left_s
