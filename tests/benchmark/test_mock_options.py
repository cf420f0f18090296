from __future__ import annotations

import math

import pytest

from llm_proxy.benchmark.mock_options import MockOptions
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
