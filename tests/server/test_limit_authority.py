from __future__ import annotations

import msgspec

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.limit_authority import Authority, LimitsUnavailable, RatePermits


def test_permits_travel_as_they_are() -> None:
    permits = RatePermits(3, valid_until=123)
    assert msgspec.json.decode(msgspec.json.encode(permits), type=RatePermits) == permits


def test_unavailable_is_an_error_on_purpose() -> None:
    assert issubclass(LimitsUnavailable, LLMProxyError)


def test_authorities_take_and_give() -> None:
    methods = {name for name in vars(Authority) if not name.startswith("_")}
    assert methods == {
        "take_rate",
        "give_rate",
        "take_slots",
        "give_slots",
        "forget",
        "close",
    }
