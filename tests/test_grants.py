from __future__ import annotations

import dataclasses

import pytest

from llm_proxy.grants import Scope, TokenGrant
from llm_proxy.secrets import Secret


def test_a_grant_is_immutable_and_shows_no_key() -> None:
    grant = TokenGrant(
        token_id="t",
        project_id="p",
        is_active=True,
        project_is_active=True,
        expires_at=None,
        max_requests=3,
        upstream_keys={"openai": Secret("sk-canary")},
    )
    assert "sk-canary" not in repr(grant)
    with pytest.raises(dataclasses.FrozenInstanceError):
        grant.max_requests = 4  # type: ignore[misc]


def test_an_empty_scope_narrows_nothing() -> None:
    assert not Scope()
    assert Scope(models=("gpt-4*",))
