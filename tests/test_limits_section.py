from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import ConfigError
from llm_proxy.limits import LimitDefaults, Limits, RateLimit
from llm_proxy.limits_section import read_limits, written_limits
from llm_proxy.yaml_file import parse_yaml


def read(text: str) -> LimitDefaults:
    document = parse_yaml(text.encode(), name="file.yaml")
    return read_limits(document.mapping().get("limits"))


def test_no_section_limits_nothing() -> None:
    assert read("apis: {}") == LimitDefaults()
    assert written_limits(LimitDefaults()) == {}


def test_section_is_read_as_written() -> None:
    limits = read(
        """
limits:
  scope: fleet
  total: {rate_limit: 1000/s, burst: 50, max_concurrent: 200}
  client_ip: {rate_limit: 60/min}
  project: {max_concurrent: 0}
  token: {rate_limit: unlimited}
"""
    )
    assert limits == LimitDefaults(
        scope="fleet",
        total=Limits(rate=RateLimit(1000, 1, 50), max_concurrent=200),
        client_ip=Limits(rate=RateLimit(60, 60, 60)),
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("scope: world", "file.yaml:2: limits.scope must be host or fleet, not 'world'"),
        ("tokens: {}", "file.yaml:2: limits.tokens is no known key; did you mean token?"),
        ("token: {rate: 5/s}", "file.yaml:2: limits.token.rate is no known key"),
        (
            "token: {rate_limit: 5 an hour}",
            "file.yaml:2: limits.token.rate_limit must be requests in a time, like 10/s",
        ),
        ("token: {rate_limit: 5}", "file.yaml:2: limits.token.rate_limit must be requests in a"),
        ("token: {rate_limit: 0/s}", "not '0/s'"),
        ("token: {burst: 5}", "limits.token.burst has no meaning without a rate_limit"),
        (
            "token: {rate_limit: 5/s, burst: 0}",
            "limits.token.burst must be a whole number from 1 to 1000000000, not '0'",
        ),
        (
            "token: {max_concurrent: -1}",
            "limits.token.max_concurrent must be a whole number from 0 to 1000000, not '-1'",
        ),
        ("token: many", "limits.token must be a mapping"),
    ],
)
def test_mistakes_are_told_with_their_line(section: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"limits:\n  {section}\n")
    assert message in str(caught.value)


limits = st.builds(
    Limits,
    rate=st.none()
    | st.builds(
        RateLimit,
        requests=st.integers(1, 999_999_999),
        window_s=st.sampled_from([1, 60, 3600, 86400]),
        burst=st.integers(1, 1_000_000_000),
    ),
    max_concurrent=st.integers(0, 1_000_000),
)


@given(
    defaults=st.builds(
        LimitDefaults,
        scope=st.sampled_from(["host", "fleet"]),
        total=limits,
        client_ip=limits,
        project=limits,
        token=limits,
    )
)
def test_what_is_written_is_read_as_the_same(defaults: LimitDefaults) -> None:
    assert read(yaml.safe_dump({"limits": written_limits(defaults)})) == defaults
