from __future__ import annotations

from llm_proxy.client_limits import ClientLimits


def test_limits_have_the_documented_defaults() -> None:
    limits = ClientLimits()
    assert (limits.head_timeout, limits.body_timeout) == (30, 60)
    assert (limits.keep_alive_timeout, limits.write_timeout) == (120, 300)
