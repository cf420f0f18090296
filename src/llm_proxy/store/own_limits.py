"""The limits that tokens and projects have of their own, in the columns that both have."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from llm_proxy.limits import LimitOverride
from llm_proxy.store.models import ProjectRow, TokenRow


class LimitChanges(msgspec.Struct, frozen=True, kw_only=True):
    """UNSET leaves a field as it is, None is what the configuration says."""

    rate_limit: str | None | UnsetType = UNSET
    rate_burst: int | None | UnsetType = UNSET
    max_concurrent: int | None | UnsetType = UNSET


def read_limits(row: TokenRow | ProjectRow) -> LimitOverride:
    return LimitOverride(
        rate_limit=row.rate_limit, rate_burst=row.rate_burst, max_concurrent=row.max_concurrent
    )


def limit_columns(limits: LimitOverride | LimitChanges) -> dict[str, Any]:
    """By name: those that are to be written."""
    columns = msgspec.structs.asdict(limits)
    return {name: value for name, value in columns.items() if value is not UNSET}
