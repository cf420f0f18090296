from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import UNSET

from llm_proxy.errors import Refusal
from llm_proxy.limits import LimitOverride
from llm_proxy.server.control.own_limits import limit_changes, new_limits, shown_limits
from llm_proxy.store.own_limits import LimitChanges


def body(**fields: Any) -> Any:
    names = ("rate_limit", "rate_burst", "max_concurrent")
    return SimpleNamespace(**{**dict.fromkeys(names, UNSET), **fields})


def test_new_limits_are_those_that_were_sent() -> None:
    sent = body(rate_limit=" 60 / minute", rate_burst=5, max_concurrent=0)
    limits = new_limits(sent)
    assert limits == LimitOverride(rate_limit="60/min", rate_burst=5, max_concurrent=0)
    assert shown_limits(limits) == {"rate_limit": "60/min", "rate_burst": 5, "max_concurrent": 0}


def test_changes_are_those_that_were_sent() -> None:
    assert limit_changes(body()) == LimitChanges()
    assert limit_changes(body(rate_limit=None)) == LimitChanges(rate_limit=None)
    changes = limit_changes(body(rate_limit="Unlimited", rate_burst=None, max_concurrent=2))
    assert changes == LimitChanges(rate_limit="unlimited", rate_burst=None, max_concurrent=2)


@pytest.mark.parametrize(
    "fields",
    [
        {"rate_limit": "fast"},
        {"rate_limit": "0/s"},
        {"rate_burst": 0},
        {"rate_burst": 10**10},
        {"max_concurrent": -1},
        {"max_concurrent": 10**7},
    ],
)
def test_a_wrong_limit_is_named(fields: dict[str, Any]) -> None:
    (field,) = fields
    with pytest.raises(Refusal, match=f"{field} must be .*, not") as caught:
        limit_changes(body(**fields))
    assert caught.value.details == {"field": field}
