from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.client_limits import ClientLimits, share_of
from llm_proxy.errors import ConfigError


@given(st.integers(1, 64), st.integers(0, 10_000))
def test_shares_add_up_to_the_total_and_differ_by_one_at_most(workers: int, more: int) -> None:
    shares = [share_of(workers + more, workers=workers, slot=slot) for slot in range(workers)]
    assert sum(shares) == workers + more
    assert shares == sorted(shares, reverse=True)
    assert shares[0] - shares[-1] <= 1


def test_no_limit_is_none_for_everyone() -> None:
    assert [share_of(0, workers=3, slot=slot) for slot in range(3)] == [0, 0, 0]


def test_fewer_requests_than_workers_is_an_error_that_names_both() -> None:
    with pytest.raises(
        ConfigError, match=r"MAX_CONCURRENT_REQUESTS .* LLM_PROXY_WORKERS \(4\), not 3"
    ):
        share_of(3, workers=4, slot=0)


def test_limits_have_the_documented_defaults() -> None:
    limits = ClientLimits()
    assert (limits.head_timeout, limits.body_timeout) == (30, 60)
    assert (limits.keep_alive_timeout, limits.write_timeout) == (120, 300)
    assert limits.max_concurrent_requests == 0
