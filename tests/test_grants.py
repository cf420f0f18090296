from __future__ import annotations

import dataclasses

import pytest

from llm_proxy.grants import TokenGrant, TokenUse
from llm_proxy.secrets import Secret


def test_a_grant_is_immutable_and_shows_no_key() -> None:
    grant = TokenGrant(
        token_id="t",
        project_id="p",
        is_active=True,
        project_is_active=True,
        expires_at=None,
        max_requests=3,
        request_count=0,
        upstream_keys={"openai": Secret("sk-canary")},
    )
    assert "sk-canary" not in repr(grant)
    with pytest.raises(dataclasses.FrozenInstanceError):
        grant.max_requests = 4  # type: ignore[misc]


def test_a_use_is_immutable() -> None:
    use = TokenUse(token_id="t", requests=1, last_used_at=0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        use.requests = 2  # type: ignore[misc]
