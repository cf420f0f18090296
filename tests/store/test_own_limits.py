from __future__ import annotations

from llm_proxy.limits import LimitOverride
from llm_proxy.store.models import ProjectRow, TokenRow
from llm_proxy.store.own_limits import LimitChanges, limit_columns, read_limits


def test_columns_are_read_and_written_by_the_same_names() -> None:
    limits = LimitOverride(rate_limit="60/min", rate_burst=5, max_concurrent=0)
    for row in (TokenRow(**limit_columns(limits)), ProjectRow(**limit_columns(limits))):
        assert read_limits(row) == limits


def test_only_what_changes_is_written() -> None:
    assert limit_columns(LimitChanges()) == {}
    changes = LimitChanges(rate_limit=None, max_concurrent=3)
    assert limit_columns(changes) == {"rate_limit": None, "max_concurrent": 3}
