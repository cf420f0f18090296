from __future__ import annotations

from llm_proxy.benchmark.mock_figures import NOT_WATCHED


def test_a_mock_that_is_not_watched_tells_nothing() -> None:
    assert (NOT_WATCHED.cpu_share, NOT_WATCHED.hang_ups) == (None, None)
