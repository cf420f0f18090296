"""The fields of tokens and projects that hold limits of their own."""

from __future__ import annotations

from typing import Protocol

import msgspec
from msgspec import UNSET, UnsetType

from llm_proxy.limits import LimitOverride
from llm_proxy.server.control import rules
from llm_proxy.store.own_limits import LimitChanges


class _NewBody(Protocol):
    rate_limit: str | None
    rate_burst: int | None
    max_concurrent: int | None


class _Patch(Protocol):
    rate_limit: str | None | UnsetType
    rate_burst: int | None | UnsetType
    max_concurrent: int | None | UnsetType


def new_limits(body: _NewBody) -> LimitOverride:
    """Raises Refusal."""
    return LimitOverride(
        rate_limit=rules.rate_limit(body.rate_limit),
        rate_burst=rules.rate_burst(body.rate_burst),
        max_concurrent=rules.max_concurrent(body.max_concurrent),
    )


def limit_changes(body: _Patch) -> LimitChanges:
    """Raises Refusal."""
    rate, burst, concurrent = body.rate_limit, body.rate_burst, body.max_concurrent
    return LimitChanges(
        rate_limit=UNSET if isinstance(rate, UnsetType) else rules.rate_limit(rate),
        rate_burst=UNSET if isinstance(burst, UnsetType) else rules.rate_burst(burst),
        max_concurrent=(
            UNSET if isinstance(concurrent, UnsetType) else rules.max_concurrent(concurrent)
        ),
    )


def shown_limits(limits: LimitOverride) -> dict[str, object]:
    """null is what the configuration says."""
    return msgspec.structs.asdict(limits)
